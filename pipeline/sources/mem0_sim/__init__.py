"""A stand-in for Mem0's platform: its HTTP API over memories that are kept in this process.

For development and tests. It answers the clients of others as the platform does, as far as that is known,
with its oddities: replicas that lag, rate limits, rows without a time, categories that come later.
"""
