"""Attacks on classifiers and detectors, in the pixel scale [0, 1].

Names and sources stand in `core.registry.ATTACKS`, which importing this fills.
"""

from . import apgd, control, gradient  # noqa: F401
