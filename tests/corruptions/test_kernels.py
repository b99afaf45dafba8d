"""Kernels and filters against OpenCV and scipy."""
import cv2
import numpy as np
import pytest
import scipy.ndimage
import torch

from pit_downstream.corruptions.kernels import PaddedSpectrum, filter_gaussian, find_fast_length, make_disk, pad_images
from tests.corruptions.photographs import photograph
from tests.reference.imagecorruptions_patched import REFERENCE

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize('radius, alias_blur', [(3, .1), (4, .5), (6, .5), (8, .5), (10, .5)])
def test_disk(radius, alias_blur):
    assert np.allclose(make_disk(radius, alias_blur).numpy(), REFERENCE.disk(radius, alias_blur), atol=1e-7)


@pytest.mark.parametrize('sigma, truncate', [(.7, 4), (1.5, 4), (6, 4), (9, 3)])
@pytest.mark.parametrize('ours, scipys', [('replicate', 'nearest'), ('symmetric', 'reflect')])
def test_gaussian(sigma, truncate, ours, scipys):
    """Both ways, line by line and by Fourier transform; a reach of 27 pixels mirrors the 33 almost fully."""
    image = photograph('astronaut', (33, 58))[..., 0] / 255
    theirs = scipy.ndimage.gaussian_filter(image, (sigma, sigma / 2), mode=scipys, truncate=truncate)
    blurred = filter_gaussian(torch.from_numpy(image)[None, None], (sigma, sigma / 2), truncate=truncate, border=ours)
    assert np.abs(blurred[0, 0].numpy() - theirs).max() < 1e-12


def test_kernels_are_rotated_by_180_degrees():
    """An uneven kernel and margin, against OpenCV's correlation."""
    image = np.random.default_rng(0).random((40, 50))
    kernel = np.random.default_rng(1).random((5, 3))  # 1 row above, 3 below; 2 columns to the left, none to the right
    theirs = cv2.filter2D(image, -1, kernel, anchor=(2, 1), borderType=cv2.BORDER_REPLICATE)
    spectral = PaddedSpectrum(torch.from_numpy(image)[None, None], (1, 3, 2, 0), 'replicate')
    turned = torch.from_numpy(kernel).flip(0, 1)
    assert np.allclose(spectral.filter(spectral.transform_kernels(turned))[0, 0].numpy(), theirs)


def test_symmetric_border_farther_than_the_image():
    image = torch.arange(6.).view(1, 1, 2, 3)
    theirs = np.pad(image[0, 0].numpy(), ((5, 1), (0, 7)), mode='symmetric')
    assert np.array_equal(pad_images(image, (5, 1, 0, 7), 'symmetric')[0, 0].numpy(), theirs)


@pytest.mark.parametrize('length, fast', [(1, 16), (224, 224), (245, 256), (265, 288), (661, 672)])
def test_fast_lengths(length, fast):
    assert find_fast_length(length) == fast
