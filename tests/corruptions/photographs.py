"""Photographs that ship with scikit-image's wheel."""
import numpy as np
import skimage.data
from PIL import Image

NAMES = ('astronaut', 'chelsea', 'coffee', 'rocket')


def photograph(name: str, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3) in RGB, resampled to `size` (H, W)."""
    return np.array(Image.fromarray(getattr(skimage.data, name)()).resize(size[::-1], Image.BICUBIC))
