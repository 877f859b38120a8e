"""The contract: what travels on the topics, and nothing about how."""
