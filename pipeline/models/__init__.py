"""The models: what texts are about, and where they lie."""
