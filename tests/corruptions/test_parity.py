"""Every corruption at every severity against imagecorruptions, whose random draws are replayed.

The reference works in float64 and truncates, so a value at the edge of a gray level may fall to either side: one
level of difference is allowed. Beyond that: 0 values everywhere but in spatter, whose chain of hard decisions
(Canny, thresholds, a normalizing maximum) may move a handful by 2.
"""
import numpy as np
import pytest
import torch

from pit_downstream.utils.registry import CORRUPTIONS
from pit_downstream.corruptions import corrupt
from pit_downstream.corruptions.base import REFERENCE
from tests.corruptions.photographs import photograph
from tests.reference.imagecorruptions_patched import Replay, reference

BEYOND = {'spatter': 8}
NAMES = [name for name in CORRUPTIONS if CORRUPTIONS.get_entry(name).metadata['source'] == REFERENCE]


def check(image: np.ndarray, name: str, severity: int, seed: int) -> None:
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    ours = corrupt(batch, name, severity, Replay(name, seed))[0].permute(1, 2, 0).numpy()
    difference = np.abs(reference(image, name, severity, seed).astype(int) - ours)
    assert (difference > 1).sum() <= BEYOND.get(name, 0)


@pytest.mark.parametrize('severity', range(1, 6))
@pytest.mark.parametrize('name', NAMES)
def test_at_224(name, severity):
    check(photograph('coffee', (224, 224)), name, severity, seed=severity)


@pytest.mark.parametrize('severity', [2, 5])
@pytest.mark.parametrize('name', [name for name in NAMES if name != 'glass_blur'])
def test_at_480_by_640(name, severity):
    check(photograph('astronaut', (480, 640)), name, severity, seed=10 + severity)


@pytest.mark.slow
def test_glass_at_480_by_640():
    """The reference's loop over the pixels alone takes seconds."""
    check(photograph('astronaut', (480, 640)), 'glass_blur', 2, seed=3)


@pytest.mark.numeric
@pytest.mark.parametrize('severity', [1, 4])
@pytest.mark.parametrize('name', NAMES)
def test_at_odd_sizes(name, severity):
    check(photograph('chelsea', (97, 61)), name, severity, seed=20 + severity)
