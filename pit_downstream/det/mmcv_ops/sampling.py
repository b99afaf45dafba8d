"""Bilinear sampling as RoIAlign defines it, and the sample positions inside RoIs.

Unlike in `grid_sample`, a point up to one pixel outside the map has the border's value; further out it is 0.
Source: mmcv 2.1.0, ops/csrc/common/cuda/roi_align_cuda_kernel.cuh (after He et al. 2017, as in Caffe2).
"""
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Corners:
    """Four pixels around each point: flat indices y * W + x and weights, both (4, ...)."""
    index: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Axis:
    """Sample positions of R RoIs along one axis, in pixels of the map.

    positions: (R, bins, G), G is the maximum number of samples of any RoI in a bin. valid: bool (R, G). counts: (R,).
    """
    positions: Tensor
    valid: Tensor
    counts: Tensor


def corners(ys: Tensor, xs: Tensor, height: int, width: int) -> Corners:
    """Compute the corners of points ys, xs: (...), in pixels. Differentiable in both through the weights."""
    inside = (ys >= -1) & (ys <= height) & (xs >= -1) & (xs <= width)
    ys = torch.where(inside, ys, torch.zeros_like(ys)).clamp(0, height - 1)
    xs = torch.where(inside, xs, torch.zeros_like(xs)).clamp(0, width - 1)
    top, left = ys.detach().floor(), xs.detach().floor()
    down, right = ys - top, xs - left
    weight = torch.stack([(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right])
    top, left = top.long(), left.long()
    bottom, end = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    index = torch.stack([top * width + left, top * width + end, bottom * width + left, bottom * width + end])
    return Corners(index, weight * inside)


def pixel_rows(features: Tensor) -> Tensor:
    """Reshape (B, C, H, W) -> (B * H * W, C): one row per pixel, so that a gather reads whole rows."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def sample(rows: Tensor, first_row: Tensor, points: Corners) -> Tensor:
    """Sample bilinearly at points of R RoIs: (R, ..., C).

    rows: `pixel_rows` of the map. first_row: int64 (R,), start of each RoI's image. points: (4, R, ...).
    """
    start = first_row.reshape(-1, *[1] * (points.index.dim() - 2))
    return sum(rows[start + index] * weight[..., None] for index, weight in zip(points.index, points.weight))


def roi_axis(start: Tensor, size: Tensor, bins: int, sampling_ratio: int) -> Axis:
    """Distribute samples evenly over the `bins` bins of [start, start + size].

    start, size: (R,), in pixels of the map. sampling_ratio: samples per bin. If it is not positive, there is one per
    pixel, rounded up, and none in an empty RoI.
    """
    counts = torch.full_like(size, sampling_ratio) if sampling_ratio > 0 else torch.ceil(size / bins).clamp(min=0)
    most = max(1, int(counts.max())) if len(counts) else 1
    step = torch.arange(most, device=start.device, dtype=start.dtype)
    inside = (step + 0.5) * (size / bins / counts.clamp(min=1))[:, None]
    bin_start = torch.arange(bins, device=start.device, dtype=start.dtype) * (size / bins)[:, None]
    positions = (start[:, None] + bin_start)[:, :, None] + inside[:, None, :]
    return Axis(positions, step < counts[:, None], counts)
