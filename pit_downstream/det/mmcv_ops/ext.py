"""Replacement of the module `mmcv._ext`: every op of this package under its C name.

`mmcv.utils.ext_loader` requires some 150 names at import, most of them for 3-D, rotated boxes and video. Names without
an implementation here return a function that raises NotImplementedError when it is called.
"""
from typing import NoReturn
from collections.abc import Callable

import torch
import torchvision

from pit_downstream.det.mmcv_ops.ms_deform_attn import ms_deform_attn_backward, ms_deform_attn_forward
from pit_downstream.det.mmcv_ops.carafe import (carafe_backward, carafe_forward, carafe_naive_backward,
                                                carafe_naive_forward)
from pit_downstream.det.mmcv_ops.deform_conv import (deform_conv_backward_input, deform_conv_backward_parameters,
                                                     deform_conv_forward, modulated_deform_conv_backward,
                                                     modulated_deform_conv_forward)
from pit_downstream.det.mmcv_ops.deform_roi_pool import deform_roi_pool_backward, deform_roi_pool_forward
from pit_downstream.det.mmcv_ops.focal import (sigmoid_focal_loss_backward, sigmoid_focal_loss_forward,
                                               softmax_focal_loss_backward, softmax_focal_loss_forward)
from pit_downstream.det.mmcv_ops.masked_conv import masked_col2im_forward, masked_im2col_forward
from pit_downstream.det.mmcv_ops.nms import nms, nms_match, softnms
from pit_downstream.det.mmcv_ops.overlaps import bbox_overlaps
from pit_downstream.det.mmcv_ops.roi_align import roi_align_backward, roi_align_forward
from pit_downstream.det.mmcv_ops.roi_pool import roi_pool_backward, roi_pool_forward

__all__ = [
    'bbox_overlaps', 'carafe_backward', 'carafe_forward', 'carafe_naive_backward', 'carafe_naive_forward',
    'deform_conv_backward_input', 'deform_conv_backward_parameters', 'deform_conv_forward', 'deform_roi_pool_backward',
    'deform_roi_pool_forward', 'get_compiler_version', 'get_compiling_cuda_version', 'masked_col2im_forward',
    'masked_im2col_forward', 'modulated_deform_conv_backward', 'modulated_deform_conv_forward',
    'ms_deform_attn_backward', 'ms_deform_attn_forward', 'nms', 'nms_match', 'roi_align_backward', 'roi_align_forward',
    'roi_pool_backward', 'roi_pool_forward', 'sigmoid_focal_loss_backward', 'sigmoid_focal_loss_forward',
    'softmax_focal_loss_backward', 'softmax_focal_loss_forward', 'softnms',
]


def get_compiler_version() -> str:
    """Return the compiler that `mmcv.utils.collect_env` prints."""
    return f'none: pit_downstream substitutes torchvision {torchvision.__version__}'


def get_compiling_cuda_version() -> str:
    """Return the CUDA version of torch, which runs the substitutes, or 'not available'."""
    return torch.version.cuda or 'not available'


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith('__'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def unavailable(*args, **kwargs) -> NoReturn:
        raise NotImplementedError(
            f'the mmcv op {name!r} has no substitute in pit_downstream; install a compiled mmcv (build mmcv 2.1.0 from '
            'its source with MMCV_WITH_OPS=1, and for torch >= 2.13 with c++17 changed to c++20 in its setup.py)')

    return unavailable
