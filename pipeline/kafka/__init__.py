"""Delivery lives here and nowhere else: batches, acks, retries, dead letters, keys."""
