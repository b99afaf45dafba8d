"""Pixel displacement of glass blur: the reference's sequential copies, computed for all pixels at once."""

import torch
import torch.nn.functional as F
from torch import Tensor


def sources(size: tuple[int, int], farthest: int, steps: Tensor) -> Tensor:
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
    found = here = numbers[:count]
    for distance in back.unbind(1):
        distance = distance.flatten()
        later = ((distance - 1) >> 31) & count  # 0 if the neighbor is earlier, else the mark of an original value
        ends = followed(here - distance + later, numbers)
        found = found.index_select(0, ends)
    return (pixels - 1 - found.view(len(steps), pixels) % pixels).flip(1).long()


def followed(pointer: Tensor, numbers: Tensor) -> Tensor:
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
