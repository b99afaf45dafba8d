"""Greedy non-maximum suppression: hard (torchvision's), soft, and with a list of the suppressed boxes.

Source of the semantics: mmcv 2.1.0, ops/csrc/pytorch/cpu/nms.cpp; soft-NMS is Bodla et al. 2017.
"""
import torch
from torch import Tensor

from pit_downstream.det.mmcv_ops.kernel import kernel, widen
from pit_downstream.det.mmcv_ops.overlaps import ious
from pit_downstream.utils.errors import InputError

NAIVE, LINEAR, GAUSSIAN = 0, 1, 2  # method codes of mmcv/ops/nms.py


@kernel
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the kept boxes, by descending score: int64 (kept,).

    boxes: (N, 4). scores: (N,). A box is removed if its IoU with a kept one is above the threshold.
    """
    boxes = widen(boxes)
    if offset:  # pixel counting is equivalent to moving the far corner
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
    # rounded as in mmcv; otherwise float32(3/5) > 0.6
    threshold = torch.tensor(iou_threshold, dtype=boxes.dtype).item()
    return torch.ops.torchvision.nms(boxes.contiguous(), scores.to(boxes.dtype).contiguous(), threshold)


@kernel
def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float, min_score: float,
            method: int, offset: int) -> Tensor:
    """Lower the scores of overlapping boxes and write the kept (x1, y1, x2, y2, score) into the first rows of `dets`.

    boxes: (N, 4). scores: (N,). dets: (N, 5). Returns their indices, int64 (kept,), by descending decayed score.
    The best box is kept even below `min_score`, as in mmcv.
    """
    left, candidates = widen(scores), widen(boxes)
    alive = torch.arange(len(boxes), device=boxes.device)
    kept, kept_scores = [alive[:0]], [left[:0]]
    while len(alive):
        best = left.argmax(dim=0, keepdim=True)
        kept.append(alive[best])
        kept_scores.append(left[best])
        left = left * _compute_decay(ious(candidates[best], candidates, offset), iou_threshold, sigma, method)
        stays = ~(left < min_score)
        stays[best] = False
        left, candidates, alive = left[stays], candidates[stays], alive[stays]
    indices = torch.cat(kept)
    dets[:len(indices), :4] = boxes[indices]
    dets[:len(indices), 4] = torch.cat(kept_scores)
    return indices


def _compute_decay(overlap: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    """Return the factor in [0, 1] for scores of boxes whose IoU with a better box is `overlap`; both (N,)."""
    if method == GAUSSIAN:
        return torch.exp(-overlap**2 / sigma)
    if method not in (NAIVE, LINEAR):
        raise InputError(f'method is 0 (naive), 1 (linear) or 2 (gaussian), got {method}')
    lowered = torch.zeros_like(overlap) if method == NAIVE else 1 - overlap
    return torch.where(overlap >= iou_threshold, lowered, torch.ones_like(overlap))


@kernel
def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group every box under the kept box that suppresses it, by descending score with the kept one first.

    dets: (N, 5) with the score last. Here an IoU equal to the threshold suppresses, unlike in `nms`.
    """
    dets = widen(dets)
    boxes, order = dets[:, :4], dets[:, 4].argsort(descending=True, stable=True)
    groups = []
    while len(order):
        best, rest = order[:1], order[1:]
        suppressed = ious(boxes[best], boxes[rest], 0) >= iou_threshold
        groups.append(torch.cat([best, rest[suppressed]]).tolist())
        order = rest[~suppressed]
    return groups
