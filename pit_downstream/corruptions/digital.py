"""Digital: contrast, elastic transform, pixelate, JPEG compression."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from pit_downstream.core.registry import CORRUPTIONS
from pit_downstream.corruptions.base import REFERENCE, together
from pit_downstream.corruptions.jpeg import Jpeg
from pit_downstream.corruptions.kernels import Padded, gaussian_taps

if TYPE_CHECKING:
    from pit_downstream.core.contracts import Rng


@CORRUPTIONS.register('contrast', group='digital', strengths=(.4, .3, .2, .1, .05), source=REFERENCE)
def contrast(images: Tensor, share: float, rng: 'Rng') -> Tensor:
    """Pull every channel towards its mean. images: (B, 3, H, W) in [0, 1]."""
    return torch.add(images.mean((2, 3), keepdim=True) * (1 - share), images, alpha=share)


@CORRUPTIONS.register('elastic_transform', group='digital', source=REFERENCE,
                      strengths=(250 * .05, 250 * .065, 250 * .085, 250 * .1, 250 * .12))
@together
def elastic_transform(images: Tensor, alphas: Sequence[float], rng: 'Rng') -> Iterator[Tensor]:
    """Move every pixel by alpha times a smooth random field. images: (B, 3, H, W) in [0, 1].

    Up to half a percent of the height either way, smoothed by a Gaussian of one percent of each side.
    """
    count, _, height, width = images.shape
    noise = torch.stack([rng.uniform((count, height, width)) for _ in 'xy'], 1)
    field = smoothed((noise * 2 - 1) * (.005 * height), (.01 * height, .01 * width))
    for alpha in alphas:
        yield moved(images, field * alpha)


def smoothed(field: Tensor, sigmas: tuple[float, float], *, truncate: float = 3.0) -> Tensor:
    """Gaussian blur with a mirrored border. field: (B, C, H, W). sigmas: along the columns, along the rows."""
    down, right = (gaussian_taps(sigma, truncate=truncate) for sigma in sigmas)
    reach = len(down) // 2, len(right) // 2
    padded = Padded(field, (reach[0], reach[0], reach[1], reach[1]), 'symmetric')
    return padded.correlate(padded.kernel_spectrum(torch.outer(down, right).to(field)))


def moved(images: Tensor, displacement: Tensor) -> Tensor:
    """Sample at (x + dx, y + dy), bilinear, mirrored at the border. displacement: (B, 2, H, W) as dx, dy in pixels."""
    height, width = images.shape[-2:]
    columns = torch.arange(width, device=images.device) + .5
    rows = torch.arange(height, device=images.device)[:, None] + .5
    grid = torch.stack(((columns + displacement[:, 0]) * (2 / width) - 1,
                        (rows + displacement[:, 1]) * (2 / height) - 1), -1)
    return F.grid_sample(images, grid.to(images), padding_mode='reflection', align_corners=False)


@CORRUPTIONS.register('pixelate', group='digital', strengths=(.6, .5, .4, .3, .25), source=REFERENCE, raw=True)
def pixelate(images: Tensor, share: float, rng: 'Rng') -> Tensor:
    """Shrink both sides to a share by box averages, enlarge by the nearest pixel. images: uint8 (B, 3, H, W).

    As Pillow: rounded to whole grey levels after each of the two axes.
    """
    height, width = images.shape[-2:]
    small = box_rows(box_rows(images.float().mT, int(width * share)).mT, int(height * share)).to(torch.uint8)
    rows, columns = (nearest(own, length, images.device) for own, length in zip(small.shape[-2:], (height, width)))
    return small.index_select(-1, columns).index_select(-2, rows)


def box_rows(images: Tensor, count: int) -> Tensor:
    """The second last axis shrunk to `count` means, each rounded half up. images: whole numbers, float32."""
    weights, sizes = box_weights(images.shape[-2], count, images.device)
    return torch.floor((weights @ images) / sizes + .5)


@lru_cache(maxsize=64)
def box_weights(length: int, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which of `length` pixels make up each of `count` means, 0 or 1, (count, length), and how many do, (count, 1).

    Pillow's BOX takes the pixels whose centres lie within half a step of the mean's centre, upper end included. Its
    order of operations is kept: at some sizes rounding decides.
    """
    step = length / count
    centres = (torch.arange(count, dtype=torch.float64)[:, None] + .5) * step
    pixels = torch.arange(length)
    distance = (pixels - centres + .5) * (1 / step)
    inside = (distance > -.5) & (distance <= .5)
    inside &= (pixels >= (centres - step / 2 + .5).long()) & (pixels < (centres + step / 2 + .5).long())
    inside = inside.float()
    return inside.to(device), inside.sum(1, keepdim=True).to(device)


@lru_cache(maxsize=64)
def nearest(length: int, count: int, device: torch.device) -> Tensor:
    """Indices that spread `length` pixels over `count`; like Pillow's, from a running sum, which decides ties."""
    steps = torch.full((count,), length / count, dtype=torch.float64)
    steps[0] /= 2
    return steps.cumsum(0).long().to(device)


@CORRUPTIONS.register('jpeg_compression', group='digital', strengths=(25, 18, 15, 10, 7), source=REFERENCE, raw=True)
@together
def jpeg_compression(images: Tensor, qualities: Sequence[int], rng: 'Rng') -> Iterator[Tensor]:
    """Compress and decompress. images: uint8 (B, 3, H, W). qualities: 1..100, as Pillow's."""
    compressed = Jpeg(images)
    for quality in qualities:
        yield compressed.at(quality)
