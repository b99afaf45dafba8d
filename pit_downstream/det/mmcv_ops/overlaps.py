"""Overlap of axis-aligned boxes (x1, y1, x2, y2). `offset` 1 counts pixels, so a box is x2 - x1 + 1 wide."""
import torch
from torch import Tensor

from pit_downstream.det.mmcv_ops.kernel import kernel, widen


def areas(boxes: Tensor, offset: int) -> Tensor:
    """Return the areas of boxes: (..., 4) -> (...)."""
    return (boxes[..., 2] - boxes[..., 0] + offset) * (boxes[..., 3] - boxes[..., 1] + offset)


def intersections(boxes: Tensor, others: Tensor, offset: int) -> Tensor:
    """Return the intersection areas of boxes, broadcast: (..., 4) and (..., 4) -> (...)."""
    corner = torch.maximum(boxes[..., :2], others[..., :2])
    sides = (torch.minimum(boxes[..., 2:], others[..., 2:]) - corner + offset).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def ious(boxes: Tensor, others: Tensor, offset: int) -> Tensor:
    """Return the intersection over union in [0, 1], broadcast. It is 0 for two empty boxes, where mmcv has 0 / 0."""
    shared = intersections(boxes, others, offset)
    union = areas(boxes, offset) + areas(others, offset) - shared
    return torch.where(union > 0, shared / union, torch.zeros_like(shared))


@kernel
def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Write IoU (mode 0) or intersection over the first area (mode 1) into `ious`.

    bboxes1: (M, 4). bboxes2: (N, 4). ious: (M, N), or (M,) if aligned, which needs M == N.
    The denominator is at least `offset`, so two empty boxes give NaN with offset 0, as in mmcv.
    Source: mmcv 2.1.0, bbox_overlaps_cuda_kernel.cuh.
    """
    first, second = widen(bboxes1), widen(bboxes2)
    if not aligned:
        first = first[:, None]
    shared = intersections(first, second, offset)
    base = areas(first, offset)
    if mode == 0:
        base = base + areas(second, offset) - shared
    ious.copy_(shared / base.clamp(min=offset))
