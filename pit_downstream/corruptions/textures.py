"""Frost textures: photographs of the package imagecorruptions, read without importing it."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

FILES = ('frost1.png', 'frost2.png', 'frost3.png', 'frost4.jpg', 'frost5.jpg')  # the reference never draws frost6.jpg


@lru_cache(maxsize=len(FILES))
def frost_texture(index: int) -> Tensor:
    """Load a texture, uint8 (3, H, W), RGB. Raises LookupError if it is not installed."""
    spec = find_spec('imagecorruptions')  # locates the folder; importing the package requires pkg_resources
    path = Path(spec.origin).parent / 'frost' / FILES[index] if spec and spec.origin else None
    if path is None or not path.is_file():
        raise LookupError(f'frost needs the texture {FILES[index]} of the package imagecorruptions, did not find it; '
                          'pip install --no-deps imagecorruptions, or leave frost out')
    return torch.from_numpy(np.array(Image.open(path).convert('RGB'))).permute(2, 0, 1).contiguous()


@lru_cache(maxsize=2 * len(FILES))
def fitted_texture(index: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Return a texture enlarged to 1.1 times the scale that covers `size`, uint8 (3, H', W').

    Interpolation is bicubic with OpenCV's coefficient -0.75, which is also torch's.
    """
    texture = frost_texture(index)
    factor = 1.1 * max(1.0, size[0] / texture.shape[1], size[1] / texture.shape[2])
    fitted = [int(np.ceil(length * factor)) for length in texture.shape[1:]]
    enlarged = F.interpolate(texture[None].float(), size=fitted, mode='bicubic', align_corners=False)
    return enlarged[0].round().clamp_(0, 255).to(torch.uint8).to(device)
