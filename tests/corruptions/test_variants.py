"""The ways of hendrycks/robustness, written out here with OpenCV, scipy and Pillow as that code uses them."""
import cv2
import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image
from skimage.filters import gaussian

from pit_downstream.corruptions import corrupt, corrupt_images
from pit_downstream.corruptions.weather import load_frost_texture
from tests.corruptions.photographs import photograph
from tests.reference.imagecorruptions_patched import Replay

SIZE = (224, 224)


def ours(image: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    return corrupt(batch, name, severity, Replay(name, seed), variant='hendrycks')[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize('severity, alpha, sigma, affine', [(1, 488, 170.8, 24.4), (2, 488, 19.52, 48.8),
                                                            (5, 29.28, 2.44, 4.88)])
def test_elastic_transform(severity, alpha, sigma, affine):
    """OpenCV rounds its map to 1/32 pixel, so edges differ by some levels; the mean is what binds."""
    image, draws = photograph('chelsea', SIZE), np.random.RandomState(3)
    center, side = np.float32(SIZE) // 2, min(SIZE) // 3
    before = np.float32([center + side, [center[0] + side, center[1] - side], center - side])
    after = before + draws.uniform(-affine, affine, size=(3, 2)).astype(np.float32)
    warped = cv2.warpAffine(image.astype(np.float32) / 255, cv2.getAffineTransform(before, after), SIZE,
                            borderMode=cv2.BORDER_REFLECT_101)
    dx, dy = (gaussian(draws.uniform(-1, 1, size=SIZE), sigma, mode='reflect', truncate=3) * alpha for _ in 'xy')
    y, x = np.mgrid[:SIZE[0], :SIZE[1]]
    theirs = np.stack([scipy.ndimage.map_coordinates(warped[..., channel], (y + dy, x + dx), order=1, mode='reflect')
                       for channel in range(3)], -1) * 255
    difference = np.abs(ours(image, 'elastic_transform', severity, 3) - theirs)
    assert difference.mean() < 1 and np.quantile(difference, .99) < 4


@pytest.mark.parametrize('size', [SIZE, (97, 61)])
@pytest.mark.parametrize('severity, share', [(1, .6), (3, .4), (5, .25)])
def test_pixelate(size, severity, share):
    image = photograph('rocket', size)
    small = Image.fromarray(image).resize((int(size[1] * share), int(size[0] * share)), Image.BOX)
    assert np.array_equal(ours(image, 'pixelate', severity, 0), np.array(small.resize(size[::-1], Image.BOX)))


def test_frost():
    image, draws = photograph('coffee', SIZE), np.random.RandomState(1)
    texture = load_frost_texture(draws.randint(5)).permute(1, 2, 0).numpy()
    y, x = draws.randint(0, texture.shape[0] - 224), draws.randint(0, texture.shape[1] - 224)
    theirs = np.clip(.7 * image + .7 * texture[y:y + 224, x:x + 224], 0, 255)
    assert np.abs(ours(image, 'frost', 3, 1) - np.uint8(theirs).astype(int)).max() <= 1


def test_frost_needs_images_smaller_than_its_textures():
    with pytest.raises(ValueError, match='must be below 315 x 527, .* got 600 x 900'):
        corrupt_images(torch.zeros(1, 3, 600, 900, dtype=torch.uint8), 'frost', 1, variant='hendrycks')
