"""Datasets: samples and targets by name. `shapes` draws the bundled dataset."""
