"""Gather and scatter around the matrix product of a convolution that is evaluated at chosen pixels only.

Guided anchoring (Wang et al. 2019) uses it at inference. mmcv defines no gradient for it.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from pit_downstream.det.mmcv_ops.kernel import kernel


@kernel
def masked_im2col_forward(im: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, col: Tensor, kernel_h: int,
                          kernel_w: int, pad_h: int, pad_w: int) -> None:
    """Write the kernel-sized patch around each chosen pixel into a column of `col`.

    im: (1, C, H, W). mask_h_idx, mask_w_idx: int64 (n,). col: (C * kernel_h * kernel_w, n).
    """
    padded = F.pad(im[0], (pad_w, pad_w, pad_h, pad_h))
    ys = mask_h_idx[:, None, None] + torch.arange(kernel_h, device=im.device)[:, None]
    xs = mask_w_idx[:, None, None] + torch.arange(kernel_w, device=im.device)
    patches = padded[:, ys, xs]  # (C, n, kernel_h, kernel_w)
    col.copy_(patches.permute(0, 2, 3, 1).reshape(col.shape))


@kernel
def masked_col2im_forward(col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int,
                          channels: int) -> None:
    """Write the columns of `col` (channels, n) to the chosen pixels of `im` (1, channels, height, width)."""
    im[0][:, mask_h_idx, mask_w_idx] = col.to(im.dtype)
