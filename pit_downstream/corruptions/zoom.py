"""Enlarging the middle of an image as scipy's `zoom` does with order 1."""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Taps(NamedTuple):
    """Linear interpolation along one axis: output i is low_weight[i] x[low[i]] + high_weight[i] x[high[i]]."""

    low: Tensor
    high: Tensor
    low_weight: Tensor
    high_weight: Tensor


@lru_cache(maxsize=1024)
def zoom_taps(length: int, factor: float, device: torch.device) -> Taps:
    """Taps that spread the middle ceil(length / factor) pixels over round(that * factor) of them, end on end.

    A last output that lies an ulp beyond the last input is 0: scipy's mode 'constant', kept.
    """
    crop = math.ceil(length / factor)
    count = round(crop * factor)
    first = (length - crop) // 2
    place = torch.arange(count, dtype=torch.float64) * ((crop - 1) / (count - 1) if count > 1 else 1)
    low = place.floor().clamp_max(crop - 1)
    share = place - low
    inside = place <= crop - 1
    high = (low + 1).clamp_max(crop - 1)
    return Taps((low + first).long().to(device), (high + first).long().to(device),
                torch.where(inside, 1 - share, 0).float().to(device), torch.where(inside, share, 0).float().to(device))


def along_rows(images: Tensor, taps: Tensor, rows: int) -> Tensor:
    """Interpolate the second last axis. images: (..., H, W). Returns (..., rows, W): the first rows of the result."""
    low, high, low_weight, high_weight = (tap[:rows] for tap in taps)
    result = images.index_select(-2, low).mul_(low_weight[:, None])
    return result.addcmul_(images.index_select(-2, high), high_weight[:, None])


def zoomed(images: Tensor, factor: float, size: tuple[int, int] | None = None) -> Tensor:
    """The middle of (..., H, W) enlarged, cut to its first `size` rows and columns where given.

    The whole result can be a pixel larger than the image, and is cut at the top left, as in the reference.
    """
    rows, columns = (zoom_taps(length, factor, images.device) for length in images.shape[-2:])
    height, width = size or (len(rows.low), len(columns.low))
    return along_rows(along_rows(images, rows, height).mT, columns, width).mT
