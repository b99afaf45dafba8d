"""Canny, chamfer distances and equalisation against OpenCV, value by value."""
import cv2
import numpy as np
import pytest
import torch

from pit_downstream.corruptions.edges import STRAIGHT, box_sums, canny, distances, equalised
from tests.corruptions.photographs import NAMES, photograph

pytestmark = pytest.mark.numeric


@pytest.fixture(params=NAMES)
def grey(request):
    return cv2.cvtColor(photograph(request.param, (61, 97)), cv2.COLOR_RGB2GRAY)


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.astype(np.int32))[None]


def test_canny(grey):
    assert np.array_equal(canny(tensor(grey), 50, 150)[0].numpy(), cv2.Canny(grey, 50, 150) > 0)


def test_distances(grey):
    edges = cv2.Canny(grey, 100, 250)
    theirs = np.minimum(cv2.distanceTransform(255 - edges, cv2.DIST_L2, 5), 20)
    ours = distances(tensor(edges) > 0)[0].double() / STRAIGHT
    assert np.abs(ours.numpy() - theirs).max() < 1e-4


def test_far_from_every_edge():
    edges = torch.zeros(1, 50, 60, dtype=torch.bool)
    assert torch.equal(distances(edges), torch.full((1, 50, 60), 20 * STRAIGHT, dtype=torch.int32))


def test_equalised(grey):
    both = np.stack((grey, np.full_like(grey, 9)))
    ours = equalised(torch.from_numpy(both.astype(np.int32)))
    assert np.array_equal(ours.numpy(), np.stack([cv2.equalizeHist(image) for image in both]))


def test_box_sums(grey):
    theirs = cv2.boxFilter(grey, cv2.CV_64F, (3, 3), normalize=False)
    assert np.array_equal(box_sums(tensor(grey))[0].numpy(), theirs)
