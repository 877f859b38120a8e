"""What the record says to Postgres. Rows travel as one JSON array, named, so a batch is one parameter.

A user is forgotten at once and erased page by page. So nothing is read from `memories` alone: a memory up to
its user's watermark is told as what it will be in a moment, a tombstone.
"""
