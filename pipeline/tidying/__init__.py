"""What nobody needs in sight is put away, and brought back. Nothing is deleted."""
