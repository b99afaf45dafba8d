"""Canny, chamfer distances and equalisation against OpenCV, value by value."""
import cv2
import numpy as np
import pytest
import torch

from pit_downstream.corruptions.edges import STRAIGHT, compute_distances, detect_edges, equalize_histograms, sum_boxes
from tests.corruptions.photographs import NAMES, photograph

pytestmark = pytest.mark.numeric


@pytest.fixture(params=NAMES)
def gray(request):
    return cv2.cvtColor(photograph(request.param, (61, 97)), cv2.COLOR_RGB2GRAY)


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.astype(np.int32))[None]


def test_detect_edges(gray):
    assert np.array_equal(detect_edges(tensor(gray), 50, 150)[0].numpy(), cv2.Canny(gray, 50, 150) > 0)


def test_compute_distances(gray):
    edges = cv2.Canny(gray, 100, 250)
    theirs = np.minimum(cv2.distanceTransform(255 - edges, cv2.DIST_L2, 5), 20)
    ours = compute_distances(tensor(edges) > 0)[0].double() / STRAIGHT
    assert np.abs(ours.numpy() - theirs).max() < 1e-4


def test_far_from_every_edge():
    edges = torch.zeros(1, 50, 60, dtype=torch.bool)
    assert torch.equal(compute_distances(edges), torch.full((1, 50, 60), 20 * STRAIGHT, dtype=torch.int32))


def test_equalize_histograms(gray):
    both = np.stack((gray, np.full_like(gray, 9)))
    ours = equalize_histograms(torch.from_numpy(both.astype(np.int32)))
    assert np.array_equal(ours.numpy(), np.stack([cv2.equalizeHist(image) for image in both]))


def test_sum_boxes(gray):
    theirs = cv2.boxFilter(gray, cv2.CV_64F, (3, 3), normalize=False)
    assert np.array_equal(sum_boxes(tensor(gray))[0].numpy(), theirs)
