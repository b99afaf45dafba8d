"""What is measured: metrics that take outputs batch by batch and give numbers by name."""
