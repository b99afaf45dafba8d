"""Deformable convolution, version 1 (Dai et al. 2017) and modulated (Zhu et al. 2019), with torchvision's kernels."""
from dataclasses import dataclass

import torch
from torch import Tensor

from pit_downstream.det.mmcv_ops.kernel import kernel, widen
from pit_downstream.utils.errors import InputError

# input, weight, offset, mask and bias
Operands = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Geometry:
    """Geometry of a deformable convolution. Pairs are (vertical, horizontal)."""
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    offset_groups: int

    def arguments(self, modulated: bool) -> tuple:
        return (*self.stride, *self.padding, *self.dilation, self.groups, self.offset_groups, modulated)


@kernel
def deform_conv_forward(input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor,
                        kW: int, kH: int, dW: int, dH: int, padW: int, padH: int, dilationW: int, dilationH: int,
                        group: int, deformable_group: int, im2col_step: int) -> None:
    """Write the convolution into `output` (B, O, h, w).

    input: (B, C, H, W). weight: (O, C / group, kH, kW). columns, ones, im2col_step: unused.
    offset: (B, 2 * deformable_group * kH * kW, h, w) = y, x per tap, in pixels.
    """
    geometry = Geometry((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    _forward(output, (input, weight, offset, None, None), geometry)


@kernel
def deform_conv_backward_input(input: Tensor, offset: Tensor, gradOutput: Tensor, gradInput: Tensor,
                               gradOffset: Tensor, weight: Tensor, columns: Tensor, kW: int, kH: int, dW: int, dH: int,
                               padW: int, padH: int, dilationW: int, dilationH: int, group: int, deformable_group: int,
                               im2col_step: int) -> None:
    """Write gradInput and gradOffset. Shapes are those of the forward pass."""
    geometry = Geometry((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    grads = _compute_gradients(gradOutput, (input, weight, offset, None, None), geometry)
    gradInput.copy_(grads[0])
    gradOffset.copy_(grads[2])


@kernel
def deform_conv_backward_parameters(input: Tensor, offset: Tensor, gradOutput: Tensor, gradWeight: Tensor,
                                    columns: Tensor, ones: Tensor, kW: int, kH: int, dW: int, dH: int, padW: int,
                                    padH: int, dilationW: int, dilationH: int, group: int, deformable_group: int,
                                    scale: float, im2col_step: int) -> None:
    """Add scale times the gradient of the weight to gradWeight."""
    geometry = Geometry((dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    weight = torch.zeros_like(gradWeight)  # its gradient does not depend on its values
    grads = _compute_gradients(gradOutput, (input, weight, offset, None, None), geometry)
    gradWeight.add_(grads[1].to(gradWeight.dtype), alpha=scale)


@kernel
def modulated_deform_conv_forward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor,
                                  mask: Tensor, output: Tensor, columns: Tensor, kernel_h: int, kernel_w: int,
                                  stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int,
                                  dilation_w: int, group: int, deformable_group: int, with_bias: bool) -> None:
    """Run `deform_conv_forward` with mask: (B, deformable_group * kH * kW, h, w) and bias: (O,)."""
    geometry = Geometry((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group)
    _forward(output, (input, weight, offset, mask, bias if with_bias else None), geometry)


@kernel
def modulated_deform_conv_backward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor,
                                   mask: Tensor, columns: Tensor, grad_input: Tensor, grad_weight: Tensor,
                                   grad_bias: Tensor, grad_offset: Tensor, grad_mask: Tensor, grad_output: Tensor,
                                   kernel_h: int, kernel_w: int, stride_h: int, stride_w: int, pad_h: int, pad_w: int,
                                   dilation_h: int, dilation_w: int, group: int, deformable_group: int,
                                   with_bias: bool) -> None:
    """Write all five gradients, grad_bias only with_bias. Shapes are those of the forward pass."""
    geometry = Geometry((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group)
    grads = _compute_gradients(grad_output, (input, weight, offset, mask, bias if with_bias else None), geometry)
    for buffer, grad in zip((grad_input, grad_weight, grad_offset, grad_mask), grads):
        buffer.copy_(grad)
    if with_bias:
        grad_bias.copy_(grads[4])


def _prepare_operands(tensors: Operands, size: torch.Size) -> tuple[Tensor, ...]:
    """Return input, weight, offset, mask and bias for torchvision: at least float32, fitted, none missing."""
    image, weight, offset = map(widen, tensors[:3])
    mask, bias = tensors[3:]
    bias = weight.new_zeros(len(weight)) if bias is None else widen(bias)
    if mask is None:  # version 1, where mmcv checks the sizes, as torchvision does
        return image, weight, offset.contiguous(), offset.new_zeros(len(offset), 0), bias
    return image, weight, _fit(offset, size), _fit(widen(mask), size), bias


def _forward(output: Tensor, tensors: tuple, geometry: Geometry) -> None:
    arguments = geometry.arguments(tensors[3] is not None)
    output.copy_(torch.ops.torchvision.deform_conv2d(*_prepare_operands(tensors, output.shape[-2:]), *arguments))


def _compute_gradients(grad_output: Tensor, tensors: tuple, geometry: Geometry) -> tuple[Tensor, ...]:
    """Return the gradients of input, weight, offset, mask and bias."""
    grad, offset, mask = widen(grad_output).contiguous(), tensors[2], tensors[3]
    arguments = geometry.arguments(mask is not None)
    operands = _prepare_operands(tensors, grad.shape[-2:])
    grads = torch.ops.torchvision._deform_conv2d_backward(grad, *operands, *arguments)
    masks = grads[3] if mask is None else _undo_fit(grads[3], mask)
    return grads[0], grads[1], _undo_fit(grads[2], offset), masks, grads[4]


def _fit(tensor: Tensor, size: torch.Size) -> Tensor:
    """Read (B, C, H, W) as the smaller (B, C, *size), from the start of each image's memory.

    mmdet's DyHead applies the offsets of one level to the half-sized next one, and mmcv's kernel then reads the buffer
    with the output's strides. Published DyHead weights were trained with this, so it is kept.
    """
    if tensor.shape[-2:] == size:
        return tensor.contiguous()
    wanted = tensor.shape[1] * size[0] * size[1]
    if tensor.shape[1:].numel() < wanted:
        raise InputError(f'offset and mask of a deformable convolution are at least as large as its output '
                         f'{tuple(size)}, got {tuple(tensor.shape[-2:])}; check the stride and padding')
    return tensor.flatten(1)[:, :wanted].reshape(len(tensor), -1, *size).contiguous()


def _undo_fit(grad: Tensor, tensor: Tensor) -> Tensor:
    """Return the gradient of `tensor`, given that of `_fit(tensor)`. It is 0 for values that were not read."""
    if grad.shape == tensor.shape:
        return grad
    whole = grad.new_zeros(tensor.shape)
    whole.view(len(tensor), -1)[:, :grad[0].numel()] = grad.flatten(1)
    return whole
