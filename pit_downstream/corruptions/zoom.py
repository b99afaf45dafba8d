"""Enlarging the middle of an image as scipy's `zoom` does with order 1."""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Taps(NamedTuple):
    """Linear interpolation along one axis: output i lies share[i] of the way from input low[i] to input high[i].

    cut: the last output is 0 instead.
    """

    low: Tensor
    high: Tensor
    share: Tensor
    cut: bool


def zoom_extent(length: int, factor: float) -> tuple[int, int]:
    """How many pixels in the middle of `length` are spread, and over how many."""
    crop = math.ceil(length / factor)
    return crop, round(crop * factor)


@lru_cache(maxsize=1024)
def zoom_taps(length: int, crop: int, count: int, device: torch.device) -> Taps:
    """Taps that spread the middle `crop` pixels of `length` over `count`, end on end.

    A last output that rounding puts an ulp beyond the last input is 0: scipy's mode 'constant', kept.
    """
    first = (length - crop) // 2
    place = torch.arange(count, dtype=torch.float64) * ((crop - 1) / (count - 1))
    low = place.floor().clamp_max(crop - 1)
    high = (low + 1).clamp_max(crop - 1)
    return Taps((low + first).long().to(device), (high + first).long().to(device),
                (place - low).float()[:, None].to(device), bool(place[-1] > crop - 1))


def enlarged(planes: Tensor, taps: Taps, count: int) -> Tensor:
    """Interpolate down the columns. planes: (N, H, W), contiguous. Returns (N, count, W): the first of the result."""
    low, high, share = (tap[:count] for tap in taps[:3])
    result = torch.lerp(planes.index_select(1, low), planes.index_select(1, high), share.to(planes.dtype))
    if taps.cut and count == len(taps.low):
        result[:, -1] = 0
    return result


def zoomed(planes: Tensor, extents: tuple[tuple[int, int], ...], size: tuple[int, int] | None = None) -> Tensor:
    """The middle of (N, H, W) enlarged, cut to its first `size` rows and columns where given, and transposed.

    extents: `zoom_extent` of H and of W. The whole result can be a pixel larger than the image; the reference too
    cuts it at the top left.
    """
    rows, columns = (zoom_taps(length, *extent, planes.device)
                     for length, extent in zip(planes.shape[-2:], extents, strict=True))
    height, width = size or (extents[0][1], extents[1][1])
    return enlarged(enlarged(planes, rows, height).mT.contiguous(), columns, width)
