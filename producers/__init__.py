"""The doors: what publishes memories, and asks for them."""
