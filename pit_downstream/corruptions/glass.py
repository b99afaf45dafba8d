"""Glass: pixels copied from near by, one after the other, solved for all pixels at once."""

import torch
from torch import Tensor


def sources(size: tuple[int, int], farthest: int, steps: Tensor) -> Tensor:
    """Where each pixel's value comes from after all passes, as flat indices, int64 (B, H * W).

    The reference visits pixels from bottom right to top left and means to swap each with a neighbour, but its numpy
    views make that a copy: the pixel takes the neighbour's value of that moment. A neighbour visited before hands on
    what it took itself, any other its old value. So one pass is a graph in which every pixel points to one neighbour,
    and following the pointers, twice as far each time, finds every source in a few gathers.

    steps: integers (B, passes, h, w, 2) in -farthest..farthest - 1, as (dx, dy) in the order of the visits.
    """
    height, width = size
    pixels = torch.arange(height * width, device=steps.device)
    rows, columns = (torch.arange(length - farthest, farthest, -1, device=steps.device) for length in size)
    here = rows[:, None] * width + columns
    found = pixels.expand(len(steps), -1)
    for dx, dy in zip(steps[..., 0].unbind(1), steps[..., 1].unbind(1), strict=True):
        row, column = rows[:, None] + dy, columns + dx
        there = row * width + column
        visited = (there > here) & (row <= height - farthest) & (column <= width - farthest) & (column > farthest)
        pointer = torch.cat((pixels + len(pixels), pixels + len(pixels))).repeat(len(steps), 1)
        pointer[:, here.flatten()] = torch.where(visited, there, there + len(pixels)).flatten(1)
        found = found.gather(1, followed(pointer, len(pixels)))
    return found


def followed(pointer: Tensor, count: int) -> Tensor:
    """The end of every chain. pointer: (B, 2 count) int64; entries from `count` on are ends, and point to themselves.

    Returns (B, count) int64 in 0..count - 1.
    """
    current = pointer[:, :count]
    while (current < count).any():
        current = pointer[:, :count] = pointer.gather(1, current)
    return current - count
