"""RoIPool: the maximum over the whole pixels that a bin touches.

Unlike torchvision's `roi_pool`, which first rounds the RoI to pixels, mmcv scales (x1, y1, x2 + 1, y2 + 1) and rounds
each bin outwards. Source: mmcv 2.1.0, ops/csrc/common/cuda/roi_pool_cuda_kernel.cuh.
"""
import torch
from torch import Tensor

from pit_downstream.det.mmcv_ops.kernel import chunks, kernel, widen
from pit_downstream.det.mmcv_ops.sampling import pixel_rows


@kernel
def roi_pool_forward(input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor, pooled_height: int,
                     pooled_width: int, spatial_scale: float) -> None:
    """Pool every RoI into `output` (R, C, h, w).

    input: (B, C, H, W). rois: (R, 5) = image index, x1, y1, x2, y2 in image pixels.
    argmax: int32 (R, C, h, w), receives the flat index of the maximum. An empty bin has index -1 and output 0.
    """
    channels, height, width = input.shape[1:]
    boxes = widen(rois)
    start, end = boxes[:, 1:3] * spatial_scale, (boxes[:, 3:5] + 1) * spatial_scale
    exists = (end > start).all(dim=1)
    ys, y_valid = _find_bin_pixels(start[:, 1], end[:, 1], pooled_height, height)
    xs, x_valid = _find_bin_pixels(start[:, 0], end[:, 0], pooled_width, width)
    rows, first_row = pixel_rows(widen(input)), rois[:, 0].long() * (height * width)
    for part in chunks(len(rois), ys[0:1].numel() * xs[0:1].numel() * channels):
        pixels = ys[part][:, :, None, :, None] * width + xs[part][:, None, :, None, :]
        valid = y_valid[part][:, :, None, :, None] & x_valid[part][:, None, :, None, :]
        valid = valid & exists[part][:, None, None, None, None]
        pixels, valid = pixels.flatten(3), valid.flatten(3)
        values = rows[first_row[part][:, None, None, None] + pixels].masked_fill(~valid[..., None], -torch.inf)
        best, where = values.max(dim=3)
        empty = ~valid.any(dim=3)[..., None]
        output[part] = best.masked_fill(empty, 0).permute(0, 3, 1, 2).to(output.dtype)
        argmax[part] = pixels.gather(3, where).masked_fill(empty, -1).permute(0, 3, 1, 2).to(argmax.dtype)


@kernel
def roi_pool_backward(grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor, pooled_height: int,
                      pooled_width: int, spatial_scale: float) -> None:
    """Write the gradient of the input into `grad_input` (B, C, H, W). Shapes are those of `roi_pool_forward`."""
    channels, height, width = grad_input.shape[1:]
    planes = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)
    index = planes[:, :, None, None] * (height * width) + argmax.long().clamp(min=0)
    grad = widen(grad_output) * (argmax >= 0)
    total = grad.new_zeros(grad_input.numel()).index_add_(0, index.flatten(), grad.flatten())
    grad_input.copy_(total.view_as(grad_input))


def _find_bin_pixels(start: Tensor, end: Tensor, bins: int, limit: int) -> tuple[Tensor, Tensor]:
    """Return the pixels of every bin along one axis and a mask of those in it.

    Both are (R, bins, maximum pixels per bin), int64 and bool.
    """
    edges = torch.arange(bins + 1, device=start.device, dtype=start.dtype) * ((end - start) / bins)[:, None]
    edges = edges + start[:, None]
    low = edges[:, :-1].floor().clamp(0, limit).long()
    high = edges[:, 1:].ceil().clamp(0, limit).long()
    most = max(1, int((high - low).max())) if len(start) else 1
    pixels = low[..., None] + torch.arange(most, device=start.device)
    return pixels.clamp(max=limit - 1), pixels < high[..., None]
