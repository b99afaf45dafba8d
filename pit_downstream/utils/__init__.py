"""Shared utilities: canonical names, registry, per-image random numbers, files, digests and checkpoints."""
