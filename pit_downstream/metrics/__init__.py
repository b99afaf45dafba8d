"""Metrics that accumulate outputs batch by batch and return values by name."""
