"""Variants of the published ImageNet-C that differ from imagecorruptions and need no ImageMagick.

motion_blur and snow need ImageMagick. zoom_blur, fog and glass_blur are identical at 224 x 224, the only size that the
source supports. Source of all: hendrycks/robustness, make_imagenet_c.py.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pit_downstream.corruptions.base import VARIANTS
from pit_downstream.corruptions.digital import average_rows, make_sampling_grid, sample_bilinear
from pit_downstream.corruptions.kernels import filter_gaussian, get_size
from pit_downstream.corruptions.weather import FROST_FILES, crop_randomly, load_frost_texture
from pit_downstream.utils.errors import InputError

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng

SOURCE = 'hendrycks/robustness'


class Elastic(NamedTuple):
    """Strength of elastic_transform.

    alpha: scale of the smoothed field in pixels. sigma: of its blur. affine: jitter of the affine map in pixels.
    """

    alpha: float
    sigma: float
    affine: float


@VARIANTS.register('elastic_transform:hendrycks', source=SOURCE, strengths=(
    Elastic(488, 170.8, 24.4), Elastic(488, 19.52, 48.8), Elastic(12.2, 2.44, 4.88), Elastic(17.08, 2.44, 4.88),
    Elastic(29.28, 2.44, 4.88)))
def apply_elastic_transform(images: Tensor, elastic: Elastic, rng: 'Rng') -> Tensor:
    """Apply a random affine map, then a smooth random displacement. images: (B, 3, H, W) in [0, 1].

    OpenCV rounds the affine map to 1/32 pixel. Here it is exact.
    """
    count, _, height, width = images.shape
    jitter = (rng.uniform((count, 6)) * 2 - 1).view(count, 3, 2) * elastic.affine
    warped = apply_affine(images, jitter)
    noise = torch.stack([rng.uniform((count, height, width)) for _ in 'xy'], 1) * 2 - 1
    field = filter_gaussian(noise, (elastic.sigma, elastic.sigma), truncate=3, border='symmetric')
    grid, step = make_sampling_grid(field)
    return sample_bilinear(warped, torch.add(grid, step, alpha=elastic.alpha))


def apply_affine(images: Tensor, jitter: Tensor) -> Tensor:
    """Warp by the affine map that moves three corners of a central square by `jitter`.

    jitter: (B, 3, 2) pixels. Bilinear, reflected at the border (cb|abc). The corners' coordinates are height first, as
    in the source, where images are square.
    """
    height, width = images.shape[-2:]
    a, b, side = height // 2, width // 2, min(height, width) // 3
    corners = jitter.new_tensor([[a + side, b + side], [a + side, b - side], [a - side, b - side]]).double()
    ones = corners.new_ones(len(images), 3, 1)
    back = torch.linalg.solve(torch.cat((corners + jitter, ones), 2), corners.expand(len(images), 3, 2))
    columns = torch.arange(width, dtype=torch.float64, device=images.device).expand(height, width)
    rows = torch.arange(height, dtype=torch.float64, device=images.device)[:, None].expand(height, width)
    points = torch.stack((columns, rows, torch.ones_like(rows)), -1).view(1, -1, 3) @ back
    scale = points.new_tensor([2 / (width - 1), 2 / (height - 1)])
    grid = (points * scale - 1).view(len(images), height, width, 2).to(images.dtype)
    return F.grid_sample(images, grid, padding_mode='reflection', align_corners=True)


@VARIANTS.register('pixelate:hendrycks', source=SOURCE, strengths=(.6, .5, .4, .3, .25), raw=True)
def apply_pixelate(images: Tensor, share: float, rng: 'Rng') -> Tensor:
    """Downscale and upscale with a box filter. images: uint8 (B, 3, H, W)."""
    planes, (height, width) = images.flatten(0, 1).float(), images.shape[-2:]
    for down, across in ((int(height * share), int(width * share)), (height, width)):
        planes = average_rows(average_rows(planes.mT.contiguous(), across).mT.contiguous(), down)
    return planes.view(images.shape).to(torch.uint8)


@VARIANTS.register('frost:hendrycks', source=SOURCE, raw=True,
                   strengths=((1, .4), (.8, .6), (.7, .7), (.65, .7), (.6, .75)))  # weights of image and texture
def apply_frost(images: Tensor, weights: tuple[float, float], rng: 'Rng') -> Tensor:
    """Add a random crop of a frost photograph at its original size. images: uint8 (B, 3, H, W)."""
    size = get_size(images)
    textures = [load_frost_texture(index).to(images.device)
                for index in rng.integers(0, len(FROST_FILES), (len(images),)).tolist()]
    if any(length <= side for texture in textures for length, side in zip(texture.shape[1:], size, strict=True)):
        raise InputError('Images for frost:hendrycks must be below 315 x 527, as its textures are not resized, got '
                         f'{size[0]} x {size[1]}. Make them smaller or omit the variant.')
    return torch.add(images.float() * weights[0], crop_randomly(textures, size, rng).float(), alpha=weights[1])
