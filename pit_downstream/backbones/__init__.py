"""Backbones. Importing this registers the classifiers with timm: `timm.create_model('pit_s')`."""

from .pit import PiT
from .pit_classifier import (
    PitClassifier, pit_b, pit_b_distilled, pit_s, pit_s_distilled, pit_ti, pit_ti_distilled, pit_xs, pit_xs_distilled,
)

__all__ = ['PiT', 'PitClassifier', 'pit_b', 'pit_b_distilled', 'pit_s', 'pit_s_distilled', 'pit_ti',
           'pit_ti_distilled', 'pit_xs', 'pit_xs_distilled']
