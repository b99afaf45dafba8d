"""Attacks on classifiers and detectors, in the pixel scale [0, 1].

Names and sources stand in `core.registry.ATTACKS`, which importing this fills.
"""

from . import apgd, carlini, control, fab, gradient, occlusion, patch, square, transfer  # noqa: F401
from .ensemble import autoattack

__all__ = ['autoattack']
