"""Where memories already live, read in."""
