"""RoIAlign, with torchvision's op for average pooling and max pooling in PyTorch."""
import torch
from torch import Tensor

from pit_downstream.det.mmcv_ops.kernel import chunks, kernel, widen
from pit_downstream.det.mmcv_ops.sampling import corners, pixel_rows, roi_axis, sample

MAX, AVERAGE = 0, 1  # pool_mode codes of mmcv/ops/roi_align.py


@kernel
def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                      aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                      pool_mode: int, aligned: bool) -> None:
    """Pool every RoI into aligned_height x aligned_width bins and write them into `output`.

    input: (B, C, H, W). rois: (R, 5) = image index, x1, y1, x2, y2 in image pixels. output: (R, C, h, w).
    argmax_y, argmax_x: (R, C, h, w), receive the positions in pixels of the map for max pooling; else empty.
    """
    if pool_mode == AVERAGE:
        features = widen(input)
        output.copy_(torch.ops.torchvision.roi_align(
            features, rois.to(features.dtype), spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned))
        return
    boxes = _scale_rois(rois, spatial_scale, aligned)
    y_axis = roi_axis(boxes[:, 1], boxes[:, 3], aligned_height, sampling_ratio)
    x_axis = roi_axis(boxes[:, 0], boxes[:, 2], aligned_width, sampling_ratio)
    channels, height, width = input.shape[1:]
    rows, first_row = pixel_rows(widen(input)), rois[:, 0].long() * (height * width)
    samples = y_axis.positions[0:1].numel() * x_axis.positions[0:1].numel()
    for part in chunks(len(rois), samples * channels):
        ys, xs, valid = _compute_points(y_axis, x_axis, part)
        values = sample(rows, first_row[part], corners(ys, xs, height, width))
        # (r, h * w, samples, C); an empty RoI has no sample and becomes 0, where mmcv leaves -1e4 or -FLT_MAX
        best, where = values.masked_fill(~valid[..., None], -torch.inf).max(dim=2)
        empty = ~valid.any(dim=2)[..., None]
        shape = (len(ys), aligned_height, aligned_width, channels)
        for buffer, found in ((output, best.masked_fill(empty, 0)),
                              (argmax_y, ys.gather(2, where).masked_fill(empty, -1)),
                              (argmax_x, xs.gather(2, where).masked_fill(empty, -1))):
            buffer[part] = found.reshape(shape).permute(0, 3, 1, 2).to(buffer.dtype)


@kernel
def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor,
                       aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                       pool_mode: int, aligned: bool) -> None:
    """Write the gradient of the input into `grad_input` (B, C, H, W). Shapes are those of `roi_align_forward`."""
    grad = widen(grad_output)
    if pool_mode == AVERAGE:
        grad_input.copy_(torch.ops.torchvision._roi_align_backward(
            grad, rois.to(grad.dtype), spatial_scale, aligned_height, aligned_width, *grad_input.shape,
            sampling_ratio, aligned))
        return
    batch, channels, height, width = grad_input.shape
    points = corners(widen(argmax_y), widen(argmax_x), height, width)
    planes = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)
    index = planes[:, :, None, None] * (height * width) + points.index
    weight = points.weight * (argmax_y != -1)  # -1 marks an empty RoI
    total = grad.new_zeros(grad_input.numel()).index_add_(0, index.flatten(), (grad * weight).flatten())
    grad_input.copy_(total.view_as(grad_input))


def _scale_rois(rois: Tensor, spatial_scale: float, aligned: bool) -> Tensor:
    """Convert (R, 5) in image pixels to (R, 4) = x, y, width, height in pixels of the map.

    Unaligned boxes are at least 1 wide and high.
    """
    boxes = widen(rois)[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    size = boxes[:, 2:] - boxes[:, :2]
    return torch.cat([boxes[:, :2], size if aligned else size.clamp(min=1)], dim=1)


def _compute_points(y_axis, x_axis, part: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Return sample positions ys, xs and their validity, each (r, h * w, samples per bin), for the RoIs of `part`."""
    ys = y_axis.positions[part][:, :, None, :, None]
    xs = x_axis.positions[part][:, None, :, None, :]
    valid = (y_axis.valid[part][:, :, None] & x_axis.valid[part][:, None, :])[:, None, None]
    ys, xs, valid = torch.broadcast_tensors(ys, xs, valid)
    return tuple(grid.flatten(3).flatten(1, 2) for grid in (ys, xs, valid))
