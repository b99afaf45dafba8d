"""Benchmarks: named sets of conditions with a pure summary and the published constants it needs."""
