"""Conditions of a measurement and the records of its results. This package does not import torch."""
