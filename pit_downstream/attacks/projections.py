"""Projections inside the box [0, 1]: onto a hyperplane, and onto the intersection with an L1 ball.

`project_to_plane` returns the shortest perturbation to a hyperplane (Croce & Hein 2020, FAB, section 3.1). Values move
towards the plane up to a common level, limited by the box. If no point of the box is on the plane, the result is the
nearest corner. `project_into_box` projects onto box and L1 ball jointly, because clipping after projection leaves
budget unused (Croce & Hein 2021).
"""

import torch
from torch import Tensor

TINY = 1e-12
ROUNDS = 100  # maximum of Newton iterations; about six are needed


def project_to_plane(points: Tensor, normal: Tensor, height: Tensor, norm: str) -> Tensor:
    """Compute the shortest d (n, d) under the norm with <normal, points + d> = <normal, points> - height.

    points: (n, d) in [0, 1]. normal: (n, d). height: (n,), of the points above the plane. norm: 'Linf', 'L2' or 'L1'.
    """
    heading = torch.where(height[:, None] >= 0, -normal, normal)
    room = torch.where(heading > 0, 1 - points, points)
    gain = normal.abs()
    if norm == 'L1':
        way = _fill_steepest_first(gain, room, height.abs())
    elif norm == 'L2':
        way = torch.minimum(_solve_level(gain * gain, room / gain.clamp_min(TINY), height.abs())[:, None] * gain, room)
    else:
        way = torch.minimum(_solve_level(gain, room, height.abs())[:, None], room)
    return way * heading.sign()


def _solve_level(gain: Tensor, limit: Tensor, wanted: Tensor) -> Tensor:
    """Solve sum_i gain_i min(level, limit_i) = wanted for the level (n,), or return the largest float if unreachable.

    Newton's method from 0: the sum is concave and piecewise linear, so it converges from below in finitely many steps.
    It needs a few passes over the values. Sorting them would cost as much as the model.
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


def _fill_steepest_first(gain: Tensor, room: Tensor, wanted: Tensor) -> Tensor:
    """Return lengths (n, d) with sum_i gain_i length_i = wanted. The largest gains reach their limit first."""
    order = gain.argsort(dim=1, descending=True)
    gain, room = gain.gather(1, order), room.gather(1, order)
    after = (gain * room).double().cumsum(1)
    before = after - gain * room
    length = ((wanted[:, None] - before) / gain.clamp_min(TINY)).to(room.dtype).clamp_min(0).minimum(room)
    return torch.empty_like(length).scatter_(1, order, length)


def project_into_box(images: Tensor, delta: Tensor, epsilon: float | Tensor) -> Tensor:
    """Project delta (Euclidean) onto the perturbations of L1 norm at most epsilon that keep images + delta in [0, 1].

    images: (n, ...) in [0, 1]. delta: same shape. epsilon: a number, or (n,), one per image.

    Each length is reduced by a common threshold and clamped between 0 and its limit. The norm is piecewise linear in
    the threshold, with kinks where a value reaches 0 or its limit.
    """
    lengths = delta.flatten(1).abs()
    room = torch.where(delta > 0, 1 - images, images).flatten(1)
    sizes = torch.minimum(lengths, room).double().sum(1)
    budget = torch.as_tensor(epsilon, dtype=torch.float64, device=delta.device).expand(len(delta))
    threshold = torch.zeros_like(sizes)
    beyond = (sizes > budget).nonzero().flatten()
    if len(beyond):
        threshold[beyond] = _find_threshold(lengths[beyond], room[beyond], budget[beyond])
    kept = (lengths - threshold[:, None].to(delta.dtype)).clamp_min(0).minimum(room)
    return kept.view_as(delta) * delta.sign()


def _find_threshold(lengths: Tensor, room: Tensor, budget: Tensor) -> Tensor:
    """Return the reduction (n,) of lengths (n, d) after which their clamped sum equals the budget (n,)."""
    kinks, order = torch.cat([lengths, lengths - room], 1).sort(dim=1, descending=True)
    growing = torch.where(order < lengths.shape[1], 1, -1).cumsum(1)  # values that grow as the threshold falls
    kinks = kinks.double()
    sizes = torch.cat([torch.zeros_like(kinks[:, :1]), (growing[:, :-1] * -kinks.diff(dim=1)).cumsum(1)], 1)
    last = (torch.searchsorted(sizes, budget[:, None]) - 1).clamp_min(0)  # the last kink with a size below the budget
    start, size, slope = (values.gather(1, last).squeeze(1) for values in (kinks, sizes, growing))
    return (start - (budget - size) / slope.clamp_min(1)).clamp_min(0)
