"""Blur: defocus, glass, motion, zoom."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pit_downstream.utils.registry import CORRUPTIONS
from pit_downstream.corruptions.base import REFERENCE, tiles, batched_severities, truncated
from pit_downstream.corruptions.glass import sources
from pit_downstream.corruptions.kernels import Padded, centerd, disk, gaussian_blurred, motion_kernels, sides
from pit_downstream.corruptions.zoom import zoom_extent, zoomed

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
def defocus_blur(images: Tensor, disks: Sequence[tuple[int, float]], rng: 'Rng') -> Iterator[Tensor]:
    """Correlate with a disk. images: (B, 3, H, W) in [0, 1]."""
    spectral = Padded(images, (WIDEST_DISK,) * 4, 'reflect')
    for radius, alias_blur in disks:
        yield spectral.filtered(disk_spectrum(radius, alias_blur, spectral.size, images.device))


@lru_cache(maxsize=64)
def disk_spectrum(radius: int, alias_blur: float, size: tuple[int, int], device: torch.device) -> Tensor:
    kernel = centerd(disk(radius, alias_blur), WIDEST_DISK).to(device)
    return torch.fft.rfft2(kernel, s=size)


@CORRUPTIONS.register('glass_blur', group='blur', strengths=GLASS, source=REFERENCE, raw=True)
def glass_blur(images: Tensor, strength: tuple[float, int, int], rng: 'Rng') -> Tensor:
    """Blur, copy pixels from neighbors, blur again. images: uint8 (B, 3, H, W)."""
    sigma, farthest, passes = strength
    blurred = truncated(gaussian_blurred(images.float(), (sigma, sigma))).float()
    inner = [length - 2 * farthest for length in images.shape[-2:]]
    steps = rng.integers(-farthest, farthest, (len(images), passes, *inner, 2))
    source = sources(sides(images), farthest, steps)
    shuffled = blurred.flatten(2).gather(2, source[:, None].expand(-1, 3, -1)).view_as(blurred)
    return gaussian_blurred(shuffled, (sigma, sigma))


@CORRUPTIONS.register('motion_blur', group='blur', strengths=STREAKS, source=REFERENCE)
@batched_severities
def motion_blur(images: Tensor, streaks: Sequence[tuple[int, float]], rng: 'Rng') -> Iterator[Tensor]:
    """Blur along a line at -45..45 degrees, one angle per image. images: (B, 3, H, W) in [0, 1]."""
    angles = rng.uniform((len(images),)) * 90 - 45
    side = round(LONGEST_STREAK * .71)  # sin(45 degrees), rounded up
    margin = (side, side, 0, LONGEST_STREAK)
    spectral = Padded(images, margin, 'replicate')
    for radius, sigma in streaks:
        kernels = motion_kernels(angles, radius, sigma, size=sides(images), margin=margin)
        yield spectral.filtered(spectral.kernel_spectrum(kernels))


@CORRUPTIONS.register('zoom_blur', group='blur', strengths=ZOOMS, source=REFERENCE)
@batched_severities
def zoom_blur(images: Tensor, zooms: Sequence[tuple[int, float]], rng: 'Rng') -> Iterator[Tensor]:
    """Average the image and its enlargements by 1, 1 + step, 1 + 2 step ... images: (B, 3, H, W) in [0, 1].

    Enlargements shared by several severities are computed once.
    """
    planes, size = images.flatten(0, 1), sides(images)
    needed: dict[tuple, list[int]] = {}  # (row extent, column extent) -> indices into `zooms`, with repeats
    for which, (count, step) in enumerate(zooms):
        for number in range(count):
            factor = 1 + number * (1 + step - 1)  # np.arange's rounding, which changes the crop at some sizes
            needed.setdefault(tuple(zoom_extent(length, factor) for length in size), []).append(which)
    sums = [torch.zeros_like(planes.mT, memory_format=torch.contiguous_format) for _ in zooms]
    for part in tiles(planes):
        for extents in sorted(needed, reverse=True):  # an order independent of the other severities
            layer = zoomed(planes[part], extents, size)
            for which in needed[extents]:
                sums[which][part].add_(layer)
    for (count, _), total in zip(zooms, sums, strict=True):
        yield (images + total.mT.view_as(images)) / (count + 1)
