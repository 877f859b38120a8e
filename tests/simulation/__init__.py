"""The whole stream in one thread and virtual time: thousands of histories, each from a seed."""
