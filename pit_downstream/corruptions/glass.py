"""Glass: pixels copied from near by, one after the other, solved for all pixels at once."""

import torch
import torch.nn.functional as F
from torch import Tensor


def sources(size: tuple[int, int], farthest: int, steps: Tensor) -> Tensor:
    """Where each pixel's value comes from after all passes, as flat indices, int64 (B, H * W).

    The reference visits pixels from bottom right to top left and means to swap each with a neighbor, but its numpy
    views make that a copy: the pixel takes the neighbor's value of that moment. A neighbor visited before hands on
    what it took itself, any other its old value. So one pass is a graph in which every pixel points to one neighbor,
    and following the pointers, twice as far each time, finds every source in a few gathers.

    steps: integers (B, passes, h, w, 2) in -farthest..farthest - 1, as (dx, dy) in the order of the visits.
    """
    pixels, count = size[0] * size[1], len(steps) * size[0] * size[1]
    # the images turned by 180 degrees: pixels are visited in the order of their numbers, smaller ones earlier
    back = torch.add(steps[..., 0], steps[..., 1], alpha=size[1]).int()
    back = F.pad(back, (farthest - 1, farthest + 1, farthest - 1, farthest + 1))
    numbers = torch.arange(2 * count, dtype=torch.int32, device=steps.device)
    found = here = numbers[:count]
    for distance in back.unbind(1):
        distance = distance.flatten()
        later = ((distance - 1) >> 31) & count  # 0 where the neighbor comes earlier, else what marks an old value
        ends = followed(here - distance + later, numbers)
        found = found.index_select(0, ends)
    return (pixels - 1 - found.view(len(steps), pixels) % pixels).flip(1).long()


def followed(pointer: Tensor, numbers: Tensor) -> Tensor:
    """The end of every chain. pointer: int32 (N,) into 0..2 N - 1, of which N.. are ends. numbers: 0..2 N - 1.

    Returns int32 (N,) in 0..N - 1.
    """
    count = len(pointer)
    table = numbers.clone()
    table[:count] = pointer
    while pointer.amin() < count:
        pointer = table.index_select(0, pointer)
        table[:count] = pointer
    return pointer - count
