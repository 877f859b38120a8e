"""How a question becomes its hits, now and as of a moment in the past."""
