"""Blur: defocus, glass, motion, zoom."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from pit_downstream.corruptions.base import REFERENCE, batched_severities, split_into_tiles, truncate_levels
from pit_downstream.corruptions.kernels import (
    PaddedSpectrum,
    center_kernel,
    filter_gaussian,
    get_size,
    make_disk,
    make_motion_kernels,
)
from pit_downstream.corruptions.zoom import compute_zoom_extent, resize_center
from pit_downstream.utils.registry import CORRUPTIONS

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng

DISKS = ((3, .1), (4, .5), (6, .5), (8, .5), (10, .5))  # radius, anti-aliasing blur
WIDEST_DISK = 10
GLASS = ((.7, 1, 2), (.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))  # sigma, maximum displacement, passes
STREAKS = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))  # radius, sigma
LONGEST_STREAK = 2 * 20  # pixels after the first
ZOOMS = ((12, .01), (16, .01), (11, .02), (13, .02), (11, .03))  # number of factors, starting at 1, and their step


@CORRUPTIONS.register('defocus_blur', group='blur', strengths=DISKS, source=REFERENCE)
@batched_severities
def apply_defocus_blur(images: Tensor, disks: Sequence[tuple[int, float]], rng: 'Rng') -> Iterator[Tensor]:
    """Correlate with a disk. images: (B, 3, H, W) in [0, 1]."""
    spectral = PaddedSpectrum(images, (WIDEST_DISK,) * 4, 'reflect')
    for radius, alias_blur in disks:
        yield spectral.filter(make_disk_spectrum(radius, alias_blur, spectral.size, images.device))


@lru_cache(maxsize=64)
def make_disk_spectrum(radius: int, alias_blur: float, size: tuple[int, int], device: torch.device) -> Tensor:
    kernel = center_kernel(make_disk(radius, alias_blur), WIDEST_DISK).to(device)
    return torch.fft.rfft2(kernel, s=size)


@CORRUPTIONS.register('glass_blur', group='blur', strengths=GLASS, source=REFERENCE, raw=True)
def apply_glass_blur(images: Tensor, strength: tuple[float, int, int], rng: 'Rng') -> Tensor:
    """Blur, copy pixels from neighbors, blur again. images: uint8 (B, 3, H, W)."""
    sigma, farthest, passes = strength
    blurred = truncate_levels(filter_gaussian(images.float(), (sigma, sigma))).float()
    inner = [length - 2 * farthest for length in images.shape[-2:]]
    steps = rng.integers(-farthest, farthest, (len(images), passes, *inner, 2))
    source = resolve_sources(get_size(images), farthest, steps)
    shuffled = blurred.flatten(2).gather(2, source[:, None].expand(-1, 3, -1)).view_as(blurred)
    return filter_gaussian(shuffled, (sigma, sigma))


@CORRUPTIONS.register('motion_blur', group='blur', strengths=STREAKS, source=REFERENCE)
@batched_severities
def apply_motion_blur(images: Tensor, streaks: Sequence[tuple[int, float]], rng: 'Rng') -> Iterator[Tensor]:
    """Blur along a line at -45..45 degrees, one angle per image. images: (B, 3, H, W) in [0, 1]."""
    angles = rng.uniform((len(images),)) * 90 - 45
    side = round(LONGEST_STREAK * .71)  # sin(45 degrees), rounded up
    margin = (side, side, 0, LONGEST_STREAK)
    spectral = PaddedSpectrum(images, margin, 'replicate')
    for radius, sigma in streaks:
        kernels = make_motion_kernels(angles, radius, sigma, size=get_size(images), margin=margin)
        yield spectral.filter(spectral.transform_kernels(kernels))


@CORRUPTIONS.register('zoom_blur', group='blur', strengths=ZOOMS, source=REFERENCE)
@batched_severities
def apply_zoom_blur(images: Tensor, zooms: Sequence[tuple[int, float]], rng: 'Rng') -> Iterator[Tensor]:
    """Average the image and its enlargements by 1, 1 + step, 1 + 2 step ... images: (B, 3, H, W) in [0, 1].

    Enlargements shared by several severities are computed once.
    """
    planes, size = images.flatten(0, 1), get_size(images)
    needed: dict[tuple, list[int]] = {}  # (row extent, column extent) -> indices into `zooms`, with repeats
    for index, (count, step) in enumerate(zooms):
        for number in range(count):
            factor = 1 + number * (1 + step - 1)  # np.arange's rounding, which changes the crop at some sizes
            needed.setdefault(tuple(compute_zoom_extent(length, factor) for length in size), []).append(index)
    sums = [torch.zeros_like(planes.mT, memory_format=torch.contiguous_format) for _ in zooms]
    for part in split_into_tiles(planes):
        for extents in sorted(needed, reverse=True):  # an order independent of the other severities
            layer = resize_center(planes[part], extents, size)
            for index in needed[extents]:
                sums[index][part].add_(layer)
    for (count, _), total in zip(zooms, sums, strict=True):
        yield (images + total.mT.view_as(images)) / (count + 1)


def resolve_sources(size: tuple[int, int], farthest: int, steps: Tensor) -> Tensor:
    """Return the source of each pixel's value after all passes, as flat indices, int64 (B, H * W).

    The reference visits pixels from bottom right to top left. It swaps each with a neighbor, but its numpy views turn
    the swap into a copy: the pixel takes the neighbor's current value. This is a copied value if the neighbor was
    visited earlier, else the original value. One pass is thus a graph in which every pixel points to one neighbor.
    Pointer doubling resolves all sources in a few gathers.

    steps: integers (B, passes, h, w, 2) in -farthest..farthest - 1, as (dx, dy) in visiting order.
    """
    pixels, count = size[0] * size[1], len(steps) * size[0] * size[1]
    # images are rotated by 180 degrees, so pixels are visited in ascending index order
    back = torch.add(steps[..., 0], steps[..., 1], alpha=size[1]).int()
    back = F.pad(back, (farthest - 1, farthest + 1, farthest - 1, farthest + 1))
    numbers = torch.arange(2 * count, dtype=torch.int32, device=steps.device)
    sources = pixel = numbers[:count]
    for distance in back.unbind(1):
        distance = distance.flatten()
        later = ((distance - 1) >> 31) & count  # 0 if the neighbor is earlier, else the mark of an original value
        ends = resolve_chains(pixel - distance + later, numbers)
        sources = sources.index_select(0, ends)
    return (pixels - 1 - sources.view(len(steps), pixels) % pixels).flip(1).long()


def resolve_chains(pointer: Tensor, numbers: Tensor) -> Tensor:
    """Return the end of every chain. pointer: int32 (N,) in 0..2 N - 1, N and above are ends. numbers: 0..2 N - 1.

    Returns int32 (N,) in 0..N - 1.
    """
    count = len(pointer)
    table = numbers.clone()
    table[:count] = pointer
    while pointer.amin() < count:
        pointer = table.index_select(0, pointer)
        table[:count] = pointer
    return pointer - count
