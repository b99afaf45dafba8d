"""Digital: contrast, elastic transform, pixelate, JPEG compression."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from pit_downstream.utils.registry import CORRUPTIONS
from pit_downstream.corruptions.base import REFERENCE, batched_severities
from pit_downstream.corruptions.jpeg import apply_jpeg
from pit_downstream.corruptions.kernels import filter_gaussian

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng


@CORRUPTIONS.register('contrast', group='digital', strengths=(.4, .3, .2, .1, .05), source=REFERENCE)
def apply_contrast(images: Tensor, share: float, rng: 'Rng') -> Tensor:
    """Blend every channel with its mean. images: (B, 3, H, W) in [0, 1]."""
    return torch.add(images.mean((2, 3), keepdim=True) * (1 - share), images, alpha=share)


@CORRUPTIONS.register('elastic_transform', group='digital', source=REFERENCE,
                      strengths=(250 * .05, 250 * .065, 250 * .085, 250 * .1, 250 * .12))
@batched_severities
def apply_elastic_transform(images: Tensor, alphas: Sequence[float], rng: 'Rng') -> Iterator[Tensor]:
    """Displace every pixel by alpha times a smooth random field. images: (B, 3, H, W) in [0, 1].

    The field is uniform within half a percent of the height, smoothed by a Gaussian with sigma 1 % of each side.
    """
    count, _, height, width = images.shape
    noise = torch.stack([rng.uniform((count, height, width)) for _ in 'xy'], 1)
    field = filter_gaussian((noise * 2 - 1) * (.005 * height), (.01 * height, .01 * width), truncate=3,
                            border='symmetric')
    grid, step = make_sampling_grid(field)
    for alpha in alphas:
        yield sample_bilinear(images, torch.add(grid, step, alpha=alpha))


def make_sampling_grid(displacement: Tensor) -> tuple[Tensor, Tensor]:
    """Return pixel coordinates and displacements in grid_sample's units, in which an image spans -1 to 1.

    displacement: (B, 2, H, W) as dx, dy in pixels. Returns (H, W, 2) and (B, H, W, 2).
    """
    height, width = displacement.shape[-2:]
    columns = (torch.arange(width, device=displacement.device) + .5) * (2 / width) - 1
    rows = (torch.arange(height, device=displacement.device) + .5) * (2 / height) - 1
    grid = torch.stack(torch.broadcast_tensors(columns, rows[:, None]), -1)
    return grid, torch.view_as_real(torch.complex(displacement[:, 0] * (2 / width), displacement[:, 1] * (2 / height)))


def sample_bilinear(images: Tensor, grid: Tensor) -> Tensor:
    """Sample images (B, 3, H, W) at `grid` (B, H, W, 2), bilinear, reflected at the border."""
    return F.grid_sample(images, grid.to(images.dtype), padding_mode='reflection', align_corners=False)


@CORRUPTIONS.register('pixelate', group='digital', strengths=(.6, .5, .4, .3, .25), source=REFERENCE, raw=True)
@batched_severities
def apply_pixelate(images: Tensor, shares: Sequence[float], rng: 'Rng') -> Iterator[Tensor]:
    """Downscale both sides with a box filter, upscale with nearest neighbor. images: uint8 (B, 3, H, W).

    As in Pillow, values are rounded to gray levels after each axis.
    """
    height, width = images.shape[-2:]
    transposed = images.flatten(0, 1).mT.contiguous().short()
    for share in shares:
        narrow = average_rows(transposed, int(width * share)).to(torch.uint8)
        small = average_rows(narrow.mT.contiguous().short(), int(height * share)).to(torch.uint8)
        rows, columns = (find_nearest(own, length, images.device) for own,
                         length in zip(small.shape[1:], (height, width)))
        wide = small.mT.contiguous().index_select(1, columns)
        yield wide.mT.contiguous().index_select(1, rows).view_as(images)


def average_rows(planes: Tensor, count: int) -> Tensor:
    """Reduce the rows of (N, H, W) to `count` box means, rounded half up. planes: int16."""
    first, weights = compute_box_weights(planes.shape[1], count, planes.device)
    sums = planes.index_select(1, first)
    for offset, weight in enumerate(weights[1:], 1):
        rows = (first + offset).clamp_max_(planes.shape[1] - 1)
        sums.addcmul_(planes.index_select(1, rows), weight)
    return sums.div(weights.sum(0)).add_(.5).to(torch.int16)


@lru_cache(maxsize=64)
def compute_box_weights(length: int, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the pixels of each of `count` box means over `length` pixels.

    Returns the first pixel (count,), and weights 0 or 1 of this and the following pixels, (taps, count, 1).
    Pillow's BOX uses the pixels whose centers are within half a step of the mean's center, upper end included. Its
    order of operations is kept because rounding changes the result at some sizes.
    """
    step = length / count
    reach = max(1.0, step) / 2
    centers = (torch.arange(count, dtype=torch.float64)[:, None] + .5) * step
    pixels = torch.arange(length)
    distance = (pixels - centers + .5) * (1 / max(1.0, step))
    inside = (distance > -.5) & (distance <= .5)
    inside &= (pixels >= (centers - reach + .5).long()) & (pixels < (centers + reach + .5).long())
    first = inside.int().argmax(1)
    taps = first + torch.arange(int(inside.sum(1).max()))[:, None]
    weights = inside.gather(1, taps.clamp_max(length - 1).T).T & (taps < length)
    return first.to(device), weights.short()[..., None].to(device)


@lru_cache(maxsize=64)
def find_nearest(length: int, count: int, device: torch.device) -> Tensor:
    """Return `count` nearest-neighbor indices into `length` pixels. As in Pillow, a running sum resolves ties."""
    steps = torch.full((count,), length / count, dtype=torch.float64)
    steps[0] /= 2
    return steps.cumsum(0).long().to(device)


@CORRUPTIONS.register('jpeg_compression', group='digital', strengths=(25, 18, 15, 10, 7), source=REFERENCE, raw=True)
@batched_severities
def apply_jpeg_compression(images: Tensor, qualities: Sequence[int], rng: 'Rng') -> Iterator[Tensor]:
    """Compress and decompress as JPEG. images: uint8 (B, 3, H, W). qualities: 1..100, as in Pillow."""
    yield from apply_jpeg(images, qualities)
