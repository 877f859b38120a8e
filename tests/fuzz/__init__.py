"""Inputs that nobody would send, at every door, by the ten thousand."""
