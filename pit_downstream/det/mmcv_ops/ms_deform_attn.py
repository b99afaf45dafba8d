"""Multi-scale deformable attention (Zhu et al. 2021), one pyramid level at a time to bound the memory.

mmcv calls the extension on CUDA only; on the CPU it uses its pure-PyTorch implementation.
"""
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from pit_downstream.det.mmcv_ops.kernel import kernel, widen


@kernel
def ms_deform_attn_forward(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, sampling_loc: Tensor,
                           attn_weight: Tensor, im2col_step: int) -> Tensor:
    """Compute the weighted sum of the values at the sampling points: (B, Q, heads * D).

    value: (B, N, heads, D), the levels concatenated. spatial_shapes: int64 (L, 2) = height, width.
    level_start_index: int64 (L,). sampling_loc: (B, Q, heads, L, P, 2) = x, y in [0, 1]; values outside are 0.
    attn_weight: (B, Q, heads, L, P). im2col_step: unused, the batch is not split.
    """
    batch, queries, heads = sampling_loc.shape[:3]
    output = widen(value).new_zeros(batch, queries, heads, value.shape[-1])
    for level, pixels, size in _iterate_levels(spatial_shapes, level_start_index):
        output += _sum_level(widen(value[:, pixels]), size, widen(sampling_loc[:, :, :, level]),
                          widen(attn_weight[:, :, :, level]))
    return output.flatten(2).to(value.dtype)


@kernel
def ms_deform_attn_backward(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, sampling_loc: Tensor,
                            attn_weight: Tensor, grad_output: Tensor, grad_value: Tensor, grad_sampling_loc: Tensor,
                            grad_attn_weight: Tensor, im2col_step: int) -> None:
    """Write the three gradients into the buffers shaped as value, sampling_loc and attn_weight.

    grad_output: (B, Q, heads * D). The forward pass of each level is recomputed.
    """
    grad = widen(grad_output).unflatten(2, (value.shape[2], value.shape[3]))
    for level, pixels, size in _iterate_levels(spatial_shapes, level_start_index):
        parts = (value[:, pixels], sampling_loc[:, :, :, level], attn_weight[:, :, :, level])
        inputs = tuple(widen(tensor).detach().requires_grad_() for tensor in parts)
        with torch.enable_grad():
            output = _sum_level(inputs[0], size, inputs[1], inputs[2])
        grads = torch.autograd.grad(output, inputs, grad)
        grad_value[:, pixels] = grads[0].to(grad_value.dtype)
        grad_sampling_loc[:, :, :, level] = grads[1].to(grad_sampling_loc.dtype)
        grad_attn_weight[:, :, :, level] = grads[2].to(grad_attn_weight.dtype)


def _iterate_levels(spatial_shapes: Tensor, level_start_index: Tensor) -> Iterator[tuple[int, slice, tuple[int, int]]]:
    """Yield (level, its slice of the values, (height, width)). This is the only copy to the host."""
    table = torch.cat([spatial_shapes, level_start_index[:, None]], dim=1).tolist()
    for level, (height, width, start) in enumerate(table):
        yield level, slice(start, start + height * width), (height, width)


def _sum_level(value: Tensor, size: tuple[int, int], locations: Tensor, weights: Tensor) -> Tensor:
    """Compute one level. value: (B, h * w, heads, D). locations: (B, Q, heads, P, 2). weights: (B, Q, heads, P).

    Returns (B, Q, heads, D).
    """
    batch, _, heads, width = value.shape
    maps = value.permute(0, 2, 3, 1).reshape(batch * heads, width, *size)
    grid = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
    sampled = F.grid_sample(maps, grid, mode='bilinear', padding_mode='zeros', align_corners=False)
    weighted = sampled * weights.transpose(1, 2).flatten(0, 1)[:, None]
    return weighted.sum(dim=-1).unflatten(0, (batch, heads)).permute(0, 3, 1, 2)
