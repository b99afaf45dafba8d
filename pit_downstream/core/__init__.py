"""Core data types. This package imports neither torch nor numpy."""
