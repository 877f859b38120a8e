"""What is measured, and against whom: ratios within one run, for machines are noisy."""
