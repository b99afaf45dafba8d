"""Occlusion: exact shares, nested cells, the places that arithmetic gives."""

import pytest
import torch

from pit_downstream.corruptions import BatchRng, corrupt_strengths
from pit_downstream.corruptions.occlusion import OcclusionStrength


def white(count=3, size=(56, 84)):
    return torch.full((count, 3, *size), 255, dtype=torch.uint8)


def occluded(images, *strengths, seed=0):
    return corrupt_strengths(images, 'occlusion', strengths, BatchRng(seed, range(len(images))))


@pytest.mark.parametrize('share', [.25, .5, 1.])
def test_random_cells_cover_the_share(share):
    black = (occluded(white(), OcclusionStrength(share=share))[0] == 0).float()
    assert black.mean((1, 2, 3)).tolist() == [share] * 3  # 196 cells of 4 x 6 pixels
    cells = black[:, 0].unflatten(1, (14, 4)).unflatten(3, (14, 6))
    assert torch.equal(cells.amax((2, 4)), cells.amin((2, 4)))


def test_random_cells_are_drawn_per_image_and_grow():
    small, large, again = occluded(white(), OcclusionStrength(share=.2), OcclusionStrength(share=.6),
                                   OcclusionStrength(share=.2))
    assert torch.equal(small, again) and not torch.equal(small[0], small[1])
    assert bool(((small == 255) | (large == 0)).all())
    assert not torch.equal(small, occluded(white(), OcclusionStrength(share=.2), seed=1)[0])


def test_center_is_a_central_square():
    image = occluded(white(1, (40, 60)), OcclusionStrength('center', .25))[0, 0, 0]
    wanted = torch.full((40, 60), 255, dtype=torch.uint8)
    wanted[10:30, 15:45] = 0
    assert torch.equal(image, wanted)


@pytest.mark.parametrize('arguments, words', [
    ({'shape': 'round'}, 'shape must be one of random, center'),
    ({'share': 0.}, 'share must be above 0 and at most 1, got 0.0'),
    ({'share': 'half'}, "got 'half'"), ({'cells': 0}, 'cells must be in 1..32'),
    ({'cells': 2.5}, 'cells must be in 1..32')])
def test_invalid_strength_raises(arguments, words):
    with pytest.raises(ValueError, match=words):
        OcclusionStrength(**arguments)
