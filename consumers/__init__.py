"""The stages: one file each, and each a process that can be started any number of times."""
