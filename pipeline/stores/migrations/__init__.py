"""The record's tables, one revision after another, in SQL.

A new one is a file in `versions/` that names the one before it as its `down_revision`. Consumers of the
version before may still be running when it is applied: add, and remove only what nobody reads any more.
"""
