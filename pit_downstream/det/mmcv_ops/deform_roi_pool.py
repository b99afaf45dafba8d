"""Deformable RoI pooling (Dai et al. 2017): RoIAlign's average with every bin moved by a learned offset."""
import torch
from torch import Tensor

from pit_downstream.det.mmcv_ops.kernel import chunks, kernel, widen
from pit_downstream.det.mmcv_ops.sampling import Axis, corners, pixel_rows, roi_axis, sample


@kernel
def deform_roi_pool_forward(input: Tensor, rois: Tensor, offset: Tensor, output: Tensor, pooled_height: int,
                            pooled_width: int, spatial_scale: float, sampling_ratio: int, gamma: float) -> None:
    """Pool every RoI into `output` (R, C, h, w).

    input: (B, C, H, W). rois: (R, 5) = image index, x1, y1, x2, y2 in image pixels.
    offset: (R, 2, h, w) = x, y in units of gamma times the RoI's size, or empty for none.
    """
    pool = _Pool(rois, (pooled_height, pooled_width), spatial_scale, sampling_ratio)
    for part in pool.parts(input):
        output[part] = pool(widen(input), gamma * widen(offset[part]), part).to(output.dtype)


@kernel
def deform_roi_pool_backward(grad_output: Tensor, input: Tensor, rois: Tensor, offset: Tensor, grad_input: Tensor,
                             grad_offset: Tensor, pooled_height: int, pooled_width: int, spatial_scale: float,
                             sampling_ratio: int, gamma: float) -> None:
    """Write both gradients. Shapes are those of the forward pass, which is recomputed.

    At the border of the map mmcv's gradient of the offset is not the derivative of its output; this one is.
    """
    pool = _Pool(rois, (pooled_height, pooled_width), spatial_scale, sampling_ratio)
    total = torch.zeros_like(widen(input))
    for part in pool.parts(input):
        features, moves = widen(input).detach().requires_grad_(), widen(offset[part]).detach().requires_grad_()
        with torch.enable_grad():
            pooled = pool(features, gamma * moves, part)
        wanted = (features, moves) if offset.numel() else (features,)
        grads = torch.autograd.grad(pooled, wanted, widen(grad_output[part]))
        total += grads[0]
        if offset.numel():
            grad_offset[part] = grads[1].to(grad_offset.dtype)
    grad_input.copy_(total)


class _Pool:
    """Sample positions of RoIs before offsets are applied."""

    def __init__(self, rois: Tensor, bins: tuple[int, int], spatial_scale: float, sampling_ratio: int):
        boxes = widen(rois)[:, 1:] * spatial_scale - 0.5
        self.images, self.bins = rois[:, 0].long(), bins
        self.size = boxes[:, 2:] - boxes[:, :2]  # (R, 2) = width, height in pixels of the map
        self.ys: Axis = roi_axis(boxes[:, 1], self.size[:, 1], bins[0], sampling_ratio)
        self.xs: Axis = roi_axis(boxes[:, 0], self.size[:, 0], bins[1], sampling_ratio)

    def parts(self, features: Tensor):
        samples = self.ys.positions[0:1].numel() * self.xs.positions[0:1].numel()
        return chunks(len(self.images), samples * features.shape[1])

    def __call__(self, features: Tensor, moves: Tensor, part: slice) -> Tensor:
        """Pool features (B, C, H, W) to (r, C, h, w). moves: (r, 2, h, w) in RoI sizes, or empty."""
        ys = self.ys.positions[part][:, :, None, :]  # (r, h, 1, samples)
        xs = self.xs.positions[part][:, None, :, :]  # (r, 1, w, samples)
        if moves.numel():
            moves = moves * self.size[part][:, :, None, None]
            ys, xs = ys + moves[:, 1, :, :, None], xs + moves[:, 0, :, :, None]
        grid = (len(ys), *self.bins, ys.shape[-1], xs.shape[-1])
        ys, xs = ys[..., :, None].expand(grid), xs[..., None, :].expand(grid)
        valid = self.ys.valid[part][:, :, None] & self.xs.valid[part][:, None, :]
        count = (self.ys.counts[part] * self.xs.counts[part]).clamp(min=1)
        height, width = features.shape[2:]
        first_row = self.images[part] * (height * width)
        values = sample(pixel_rows(features), first_row, corners(ys, xs, height, width))
        values = values * valid[:, None, None, :, :, None]
        return (values.sum(dim=(3, 4)) / count[:, None, None, None]).permute(0, 3, 1, 2)
