"""The L1 ball where it meets the box [0, 1]: clipping after projecting leaves budget unused (Croce & Hein 2021)."""

import torch
from torch import Tensor


def project_into_box(images: Tensor, delta: Tensor, epsilon: float | Tensor) -> Tensor:
    """The nearest (Euclidean) perturbation to delta of L1 size up to epsilon that keeps images + delta in [0, 1].

    images: (n, ...) in [0, 1]. delta: same shape. epsilon: a number, or (n,), one per image.

    Every value is its length minus a common threshold, between 0 and the room it has. The size is piecewise linear in
    the threshold; its kinks are where a value comes to 0 and where it fills its room.
    """
    lengths = delta.flatten(1).abs()
    room = torch.where(delta > 0, 1 - images, images).flatten(1)
    sizes = torch.minimum(lengths, room).double().sum(1)
    budget = torch.as_tensor(epsilon, dtype=torch.float64, device=delta.device).expand(len(delta))
    threshold = torch.zeros_like(sizes)
    beyond = (sizes > budget).nonzero().flatten()
    if len(beyond):
        threshold[beyond] = _threshold(lengths[beyond], room[beyond], budget[beyond])
    kept = (lengths - threshold[:, None].to(delta.dtype)).clamp_min(0).minimum(room)
    return kept.view_as(delta) * delta.sign()


def _threshold(lengths: Tensor, room: Tensor, budget: Tensor) -> Tensor:
    """(n,): by how much lengths (n, d) have to shrink for their sum, none above its room, to be the budget (n,)."""
    kinks, order = torch.cat([lengths, lengths - room], 1).sort(dim=1, descending=True)
    growing = torch.where(order < lengths.shape[1], 1, -1).cumsum(1)  # values that grow while the threshold sinks
    kinks = kinks.double()
    sizes = torch.cat([torch.zeros_like(kinks[:, :1]), (growing[:, :-1] * -kinks.diff(dim=1)).cumsum(1)], 1)
    last = (torch.searchsorted(sizes, budget[:, None]) - 1).clamp_min(0)  # the last kink with a size below the budget
    start, size, slope = (values.gather(1, last).squeeze(1) for values in (kinks, sizes, growing))
    return (start - (budget - size) / slope.clamp_min(1)).clamp_min(0)
