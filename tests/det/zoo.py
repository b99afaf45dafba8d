"""The detectors in configs/, and which of them the suite trains a step."""

import copy
import functools
import os
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).parents[2] / 'configs'
CONFIGS = sorted(path.name for path in ROOT.glob('*.py') if 'tools/train.py' in path.read_text())

# One of each kind of detector, every backbone among them, is trained a step on bundled images, some as large as for
# COCO. What sets the others apart is checked without weights (contracts/test_configs.py). PIT_DOWNSTREAM_ALL_CONFIGS=1
# trains a step of them all, in some ten minutes of one core.
EVERY = bool(os.environ.get('PIT_DOWNSTREAM_ALL_CONFIGS'))
LARGE = CONFIGS if EVERY else [
    'deformable_detr_deepvit_s.py', 'detr_r50.py', 'dino_pit_s.py', 'faster_rcnn_deepvit_16.py',
    'mask_rcnn_deepvit_s.py', 'retinanet_pit_b.py', 'retinanet_pit_ti_bccd.py']
BUNDLED = CONFIGS if EVERY else [
    *LARGE, 'atss_vit_s.py', 'cascade_mask_rcnn_pit_s.py', 'conditional_detr_pit_s.py', 'dab_detr_vit_s.py',
    'fcos_pit_s.py', 'rtmdet_pit_s.py']


@functools.cache
def read(name: str) -> Config:
    """A config that nobody changes: reading one takes a third of a second."""
    return Config.fromfile(ROOT / name)


def fresh(name: str) -> Config:
    """A copy of it, to be changed."""
    return copy.deepcopy(read(name))
