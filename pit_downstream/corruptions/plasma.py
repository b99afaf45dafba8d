"""Plasma: batched height maps by the diamond-square algorithm."""

import torch
from torch import Tensor

WIBBLE = 100  # the first level's amplitude; squared in use because the reference multiplies twice


def plasma(noise: Tensor, decay: float, size: tuple[int, int]) -> Tensor:
    """Return the top left crop of square, periodic height maps in [0, 1].

    noise: (B, side * side - 1) uniform in [0, 1), level by level: squares, then the diamonds above and beside. side is
    a power of two. decay: divisor of the wibble per level. Returns (B, *size).
    Source: mapgen's diamondsquare.py by FLHerne, as modified by imagecorruptions.
    """
    heights = noise.new_zeros(len(noise), 1, 1)
    wibble, used = float(WIBBLE), 0
    while used < noise.shape[1]:
        cells = heights.shape[-1] ** 2
        level = noise[:, used:used + 3 * cells] * (2 * wibble ** 2) - wibble ** 2
        heights = _finer(heights, level.view(len(noise), 3, *heights.shape[-2:]))
        wibble, used = wibble / decay, used + 3 * cells
    low, high = heights.amin((1, 2), keepdim=True), heights.amax((1, 2), keepdim=True)
    return (heights[:, :size[0], :size[1]] - low) / (high - low)


def _finer(corners: Tensor, wobble: Tensor) -> Tensor:
    """Add one level. corners: (B, n, n). wobble: (B, 3, n, n) for centers, upper, left edges. Returns (B, 2 n, 2 n)."""
    below = corners + corners.roll(-1, 1)
    beside = corners + corners.roll(-1, 2)
    centers = (below + below.roll(-1, 2)) / 4 + wobble[:, 0]
    upper = (centers + centers.roll(1, 1) + beside) / 4 + wobble[:, 1]
    left = (centers + centers.roll(1, 2) + below) / 4 + wobble[:, 2]
    batch, side = corners.shape[:2]
    upper_rows, lower_rows = torch.complex(corners, upper), torch.complex(left, centers)  # faster than stack
    return torch.view_as_real(torch.stack((upper_rows, lower_rows), 2)).view(batch, 2 * side, 2 * side)
