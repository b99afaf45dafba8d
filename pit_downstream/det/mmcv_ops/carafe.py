"""CARAFE upsampling (Wang et al. 2019): each output pixel weights the k x k inputs around its source by its own mask.

mmcv has a fast and a naive kernel for the same function. Here both run one loop over the k * k taps.
"""
from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from pit_downstream.det.mmcv_ops.kernel import kernel, widen


@kernel
def carafe_naive_forward(features: Tensor, masks: Tensor, output: Tensor, kernel_size: int, group_size: int,
                         scale_factor: int) -> None:
    """Write the upsampled features into `output` (B, C, s * H, s * W).

    features: (B, C, H, W), 0 outside the map. masks: (B, groups * k * k, s * H, s * W). Channels are split into
    `group_size` groups; those of a group share a mask.
    """
    taps = _split_masks(widen(masks), kernel_size, group_size, scale_factor)
    padded = _pad(widen(features), kernel_size, group_size)
    total = widen(output).new_zeros(output.shape)
    blocks = _split_blocks(total, group_size, scale_factor)
    for tap, rows, columns in _iterate_taps(kernel_size, features.shape):
        blocks.addcmul_(padded[..., rows, columns][..., :, None, :, None], taps[:, :, tap][:, :, None])
    output.copy_(total)


@kernel
def carafe_naive_backward(top_grad: Tensor, features: Tensor, masks: Tensor, bottom_grad: Tensor, mask_grad: Tensor,
                          kernel_size: int, group_size: int, scale_factor: int) -> None:
    """Write the gradients of features and masks. top_grad has the shape of the output."""
    taps = _split_masks(widen(masks), kernel_size, group_size, scale_factor)
    padded = _pad(widen(features), kernel_size, group_size)
    grad = _split_blocks(widen(top_grad).contiguous(), group_size, scale_factor)
    padded_grad, taps_grad = padded.new_zeros(padded.shape), taps.new_zeros(taps.shape)
    for tap, rows, columns in _iterate_taps(kernel_size, features.shape):
        padded_grad[..., rows, columns] += (grad * taps[:, :, tap][:, :, None]).sum(dim=(4, 6))
        taps_grad[:, :, tap] = (grad * padded[..., rows, columns][..., :, None, :, None]).sum(dim=2)
    edge = kernel_size // 2
    height, width = features.shape[2:]
    bottom_grad.copy_(padded_grad[..., edge:edge + height, edge:edge + width].reshape(features.shape))
    mask_grad.copy_(taps_grad.reshape(masks.shape))


@kernel
def carafe_forward(features: Tensor, masks: Tensor, rfeatures: Tensor, routput: Tensor, rmasks: Tensor,
                   output: Tensor, kernel_size: int, group_size: int, scale_factor: int) -> None:
    """Run `carafe_naive_forward` and copy the features to `rfeatures`, the only copy that the backward pass gets."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


@kernel
def carafe_backward(top_grad: Tensor, rfeatures: Tensor, masks: Tensor, rtop_grad: Tensor, rbottom_grad_hs: Tensor,
                    rbottom_grad: Tensor, rmask_grad: Tensor, bottom_grad: Tensor, mask_grad: Tensor,
                    kernel_size: int, group_size: int, scale_factor: int) -> None:
    """Run `carafe_naive_backward`. rtop_grad, rbottom_grad_hs, rbottom_grad and rmask_grad are unused scratch."""
    carafe_naive_backward(top_grad, rfeatures, masks, bottom_grad, mask_grad, kernel_size, group_size, scale_factor)


def _iterate_taps(kernel_size: int, shape: tuple[int, ...]) -> Iterator[tuple[int, slice, slice]]:
    """Yield (tap, rows, columns): the part of the padded map under each tap of the kernel."""
    for tap in range(kernel_size**2):
        top, left = divmod(tap, kernel_size)
        yield tap, slice(top, top + shape[2]), slice(left, left + shape[3])


def _pad(features: Tensor, kernel_size: int, groups: int) -> Tensor:
    """Pad and group features: (B, C, H, W) -> (B, groups, C / groups, H + k - 1, W + k - 1)."""
    return F.pad(features, [kernel_size // 2] * 4).unflatten(1, (groups, -1))


def _split_masks(masks: Tensor, kernel_size: int, groups: int, scale: int) -> Tensor:
    """Reshape (B, groups * k * k, s * H, s * W) -> (B, groups, k * k, H, s, W, s)."""
    return masks.unflatten(1, (groups, kernel_size**2)).unflatten(3, (-1, scale)).unflatten(5, (-1, scale))


def _split_blocks(output: Tensor, groups: int, scale: int) -> Tensor:
    """View (B, C, s * H, s * W) as (B, groups, C / groups, H, s, W, s)."""
    return output.unflatten(1, (groups, -1)).unflatten(3, (-1, scale)).unflatten(5, (-1, scale))
