"""Proposals of Square under L2 and L1: the perturbation of one window moves to another, in a pattern."""

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pit_downstream.attacks.projections import project_into_box
from pit_downstream.attacks.threat_model import ThreatModel

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng

TINY = 1e-12
TILES = 5  # per side of the initial perturbation
FALL = {'L2': 2, 'L1': 4}  # ring i of a pattern adds 1 / i ^ FALL


class Windows:
    """Window proposals. threat: of norm L2 or L1. Perturbations are (n, C, H, W), windows (n, C, s, s)."""

    def __init__(self, threat: ThreatModel):
        self.threat = threat
        self.order = {'L2': 2, 'L1': 1}[threat.norm]

    def draw_start(self, clean: Tensor, rng: 'Rng') -> Tensor:
        """Return images tiled with patterns of random sign and direction."""
        rows, channels, height, width = clean.shape
        side = max(height // TILES, 1)
        margin = (height - side * TILES) // 2
        down, right = (range(margin, length - side + 1, side)[:length // side] for length in (height, width))
        coins = rng.integers(0, 2 ** (channels + 1), (rows, len(down), len(right)))
        delta = torch.zeros_like(clean)
        patterns = make_pattern(side, self.threat.norm).to(clean)
        for row, top in enumerate(down):
            for column, left in enumerate(right):
                coin = coins[:, row, column]
                signs = (coin[:, None] >> torch.arange(channels, device=clean.device) & 1).to(clean) * 2 - 1
                turned = (coin >> channels & 1).long()
                delta[:, :, top:top + side, left:left + side] = signs[:, :, None, None] * patterns[turned][:, None]
        return self._project(clean, delta)

    def move_windows(self, clean: Tensor, images: Tensor, sizes: Tensor, positions: Tensor, signs: Tensor,
                     turned: Tensor) -> Tensor:
        """Return new images. sizes: (n,), sides of the windows. positions: (n, 4) in [0, 1), origins of both windows.

        signs: (n, C), 1 or -1. turned: bool (n,), transposed patterns.
        """
        delta = images - clean
        for side in sizes.unique().tolist():
            rows = slice(None) if (sizes == side).all() else (sizes == side).nonzero().flatten()
            delta[rows] = self._move(delta[rows], side, positions[rows], signs[rows], turned[rows])
        return self._project(clean, delta)

    def _move(self, delta: Tensor, side: int, positions: Tensor, signs: Tensor, turned: Tensor) -> Tensor:
        """Clear the second window, and add its norm, the unused budget and a pattern to the first."""
        rows, channels, height, width = delta.shape
        to, away = (_index_window(positions[:, 2 * i:2 * i + 2], side, (height, width)) for i in (0, 1))
        flat = delta.flatten(2)
        both = torch.zeros(rows, height * width, dtype=torch.bool, device=delta.device)
        both.scatter_(1, to, True).scatter_(1, away, True)
        freed = self._compute_size(flat * both[:, None])
        used = self._compute_size(delta.flatten(1)) ** self.order
        left = (self.threat.epsilon ** self.order - used).clamp_min(0)[:, None]
        if self.order == 2:
            size = (left / channels + freed ** 2).sqrt()
        else:
            size = left + freed * channels
        to = to[:, None].expand(-1, channels, -1)
        previous = flat.gather(2, to)
        patterns = make_pattern(side, self.threat.norm).to(delta)[turned.long()].flatten(1)
        new = signs[:, :, None] * patterns[:, None] + previous / (TINY + self._compute_size(previous)[..., None])
        new = new / (TINY + self._compute_size(new)[..., None]) * size[..., None]
        emptied = flat.scatter(2, away[:, None].expand(-1, channels, -1), 0)
        return emptied.scatter_(2, to, new).view_as(delta)

    def _compute_size(self, values: Tensor) -> Tensor:
        return torch.linalg.vector_norm(values, ord=self.order, dim=-1)

    def _project(self, clean: Tensor, delta: Tensor) -> Tensor:
        """Return the images with the full budget, or under L1 a bit less against rounding (as in the original)."""
        if self.order == 1:
            return clean + project_into_box(clean, delta, self.threat.epsilon * (1 - 1e-6))
        size = self._compute_size(delta.flatten(1)).clamp_min(TINY)
        return (clean + delta * (self.threat.epsilon / size)[:, None, None, None]).clamp(0, 1)


def _index_window(positions: Tensor, side: int, sides: tuple[int, int]) -> Tensor:
    """Return the flat indices (n, side * side) of a window with origin positions (n, 2) in [0, 1)."""
    first = (positions * (torch.tensor(sides, device=positions.device) - side)).long()
    steps = torch.arange(side, device=positions.device)
    down, right = ((first[:, axis:axis + 1] + steps) for axis in (0, 1))
    return (down[:, :, None] * sides[1] + right[:, None, :]).flatten(1)


@lru_cache(maxsize=64)
def make_pattern(side: int, norm: str) -> Tensor:
    """Return (2, side, side): an upper half of rings and a lower half of negative ones, of norm 1; its transpose."""
    halves = _sum_rings(side // 2, side, FALL[norm]), -_sum_rings(side - side // 2, side, FALL[norm])
    order = {'L2': 2, 'L1': 1}[norm]
    whole = torch.cat([half / torch.linalg.vector_norm(half, ord=order).clamp_min(TINY) for half in halves])
    whole = whole / torch.linalg.vector_norm(whole, ord=order)
    return torch.stack([whole, whole.T])


def _sum_rings(height: int, width: int, fall: int) -> Tensor:
    """Sum centered rectangles, each one pixel larger on every side. The i-th adds 1 / i ^ fall."""
    sums = torch.zeros(height, width)
    top, left = height // 2, width // 2
    for ring in range(max(top, left) + 1):
        sums[max(top - ring, 0):min(top + ring + 1, height), max(left - ring, 0):min(left + ring + 1, width)] += \
            1 / (ring + 1) ** fall
    return sums
