"""The way of least length from a point in the box [0, 1] to a hyperplane, without leaving the box.

The values that move do so towards the plane, by as much as a common level allows and none beyond the box (Croce & Hein
2020, FAB, section 3.1). Where no point of the box is on the plane, the way ends in the corner nearest to it.
"""

import torch
from torch import Tensor

TINY = 1e-12
ROUNDS = 100  # of Newton's method at most; about six are needed


def to_plane(points: Tensor, normal: Tensor, height: Tensor, norm: str) -> Tensor:
    """The shortest d (n, d) under the norm with <normal, points + d> = <normal, points> - height.

    points: (n, d) in [0, 1]. normal: (n, d). height: (n,), of the points above the plane. norm: 'Linf', 'L2' or 'L1'.
    """
    heading = torch.where(height[:, None] >= 0, -normal, normal)
    room = torch.where(heading > 0, 1 - points, points)
    gain = normal.abs()
    if norm == 'L1':
        way = _steepest_first(gain, room, height.abs())
    elif norm == 'L2':
        way = torch.minimum(_level(gain * gain, room / gain.clamp_min(TINY), height.abs())[:, None] * gain, room)
    else:
        way = torch.minimum(_level(gain, room, height.abs())[:, None], room)
    return way * heading.sign()


def _level(gain: Tensor, limit: Tensor, wanted: Tensor) -> Tensor:
    """(n,): the level at which sum_i gain_i min(level, limit_i) is what is wanted; the largest float where it never is.

    Newton's method from 0: the sum is concave and piecewise linear, so it comes from below and ends on the spot. It
    needs a few passes over the values, where sorting them would cost as much as the model.
    """
    most = torch.finfo(gain.dtype).max
    level = wanted / gain.sum(1).clamp_min(TINY)
    for _ in range(ROUNDS):
        free = limit > level[:, None]
        slope = torch.where(free, gain, 0).sum(1)
        reached = torch.where(free, 0, gain * limit).sum(1)
        higher = torch.where(slope > 0, (wanted - reached) / slope.clamp_min(TINY), most).maximum(level)
        if bool((higher <= level * (1 + 1e-6)).all()):
            break
        level = higher
    return level


def _steepest_first(gain: Tensor, room: Tensor, wanted: Tensor) -> Tensor:
    """Lengths (n, d) with sum_i gain_i length_i = wanted: the values of the largest gain use up their room first."""
    order = gain.argsort(dim=1, descending=True)
    gain, room = gain.gather(1, order), room.gather(1, order)
    after = (gain * room).double().cumsum(1)
    before = after - gain * room
    length = ((wanted[:, None] - before) / gain.clamp_min(TINY)).to(room.dtype).clamp_min(0).minimum(room)
    return torch.empty_like(length).scatter_(1, order, length)
