"""Per-image random numbers for corruptions and attacks."""
