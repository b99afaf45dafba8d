"""Enlargement of the image center, as scipy's `zoom` with order 1."""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Taps(NamedTuple):
    """Linear interpolation along one axis: output i is (1 - share[i]) * input[low[i]] + share[i] * input[high[i]].

    cut: whether the last output is 0 instead.
    """

    low: Tensor
    high: Tensor
    share: Tensor
    cut: bool


def compute_zoom_extent(length: int, factor: float) -> tuple[int, int]:
    """Return the number of cropped center pixels of `length`, and the number of output pixels."""
    crop = math.ceil(length / factor)
    return crop, round(crop * factor)


@lru_cache(maxsize=1024)
def compute_zoom_taps(length: int, crop: int, count: int, device: torch.device) -> Taps:
    """Return taps that interpolate the center `crop` pixels of `length` to `count` pixels with aligned corners.

    If rounding moves the last output an ulp past the last input, it is 0, as with scipy's mode 'constant'.
    """
    first = (length - crop) // 2
    position = torch.arange(count, dtype=torch.float64) * ((crop - 1) / (count - 1))
    low = position.floor().clamp_max(crop - 1)
    high = (low + 1).clamp_max(crop - 1)
    return Taps((low + first).long().to(device), (high + first).long().to(device),
                (position - low).float()[:, None].to(device), bool(position[-1] > crop - 1))


def interpolate_columns(planes: Tensor, taps: Taps, count: int) -> Tensor:
    """Interpolate along the columns. planes: (N, H, W), contiguous. Returns the first rows, (N, count, W)."""
    low, high, share = (tap[:count] for tap in taps[:3])
    result = torch.lerp(planes.index_select(1, low), planes.index_select(1, high), share.to(planes.dtype))
    if taps.cut and count == len(taps.low):
        result[:, -1] = 0
    return result


def resize_center(planes: Tensor, extents: tuple[tuple[int, int], ...], size: tuple[int, int] | None = None) -> Tensor:
    """Enlarge the center of (N, H, W), crop to the first `size` rows and columns (default: all), and transpose.

    extents: `compute_zoom_extent` of H and of W. The result can be one pixel larger than the image. As in the
    reference, the crop is at the top left.
    """
    rows, columns = (compute_zoom_taps(length, *extent, planes.device)
                     for length, extent in zip(planes.shape[-2:], extents, strict=True))
    height, width = size or (extents[0][1], extents[1][1])
    return interpolate_columns(interpolate_columns(planes, rows, height).mT.contiguous(), columns, width)
