"""Focal losses (Lin et al. 2017) without reduction; mmcv's wrapper reduces.

Logarithms are of the unrounded sigmoid, so a logit of 20 costs 20. mmcv takes log(max(1 - p, FLT_MIN)) of a rounded p,
which jumps to 87 there. mmdet's `py_sigmoid_focal_loss` agrees with ours.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from pit_downstream.det.mmcv_ops.kernel import kernel, widen


@kernel
def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float,
                               alpha: float) -> None:
    """Write the loss of every logit into `output` (N, K).

    input: logits (N, K). target: int64 (N,); a value outside 0..K-1, as mmdet's background K, is negative for all.
    weight: (K,), the weight of a row by its target, or empty. A target outside has weight 1 (mmcv reads past the end).
    """
    logits = widen(input)
    positive = _make_one_hot(target, logits.shape[1])
    loss = torch.where(positive, -alpha * (-logits).sigmoid()**gamma * F.logsigmoid(logits),
                       (alpha - 1) * logits.sigmoid()**gamma * F.logsigmoid(-logits))
    output.copy_(loss * _get_row_weight(weight, target, logits)[:, None])


@kernel
def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float,
                                alpha: float) -> None:
    """Write the derivative of every loss with respect to its logit into `grad_input` (N, K)."""
    logits = widen(input)
    p, q = logits.sigmoid(), (-logits).sigmoid()
    positive = alpha * q**gamma * (gamma * p * F.logsigmoid(logits) - q)
    negative = (1 - alpha) * p**gamma * (p - gamma * q * F.logsigmoid(-logits))
    grad = torch.where(_make_one_hot(target, logits.shape[1]), positive, negative)
    grad_input.copy_(grad * _get_row_weight(weight, target, logits)[:, None])


@kernel
def softmax_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float,
                               alpha: float) -> None:
    """Write -alpha (1 - p)^gamma log p of the target class into `output` (N,).

    input: probabilities (N, K), after softmax. target: int64 (N,); rows with a target outside 0..K-1 have loss 0.
    weight: (K,) by target, or empty.
    """
    p = _get_target_probability(input, target)
    loss = -alpha * (1 - p)**gamma * p.log()
    known = (target >= 0) & (target < input.shape[1])
    output.copy_(torch.where(known, loss * _get_row_weight(weight, target, p), torch.zeros_like(loss)))


@kernel
def softmax_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor,
                                gamma: float, alpha: float) -> None:
    """Write the derivative with respect to the logits before the softmax into `grad_input` (N, K).

    `buff` (N,) is scratch.
    """
    p = _get_target_probability(input, target)
    tiny = torch.finfo(p.dtype).tiny
    # d loss / d p, times p; the remaining factor is (one hot - softmax)
    outer = alpha * (gamma * (1 - p).clamp(min=tiny)**(gamma - 1) * p * p.log() - (1 - p)**gamma)
    known = (target >= 0) & (target < input.shape[1])
    outer = torch.where(known, outer * _get_row_weight(weight, target, p), torch.zeros_like(outer))
    buff.copy_(outer)
    grad_input.copy_(outer[:, None] * (_make_one_hot(target, input.shape[1]).to(p.dtype) - widen(input)))


def _make_one_hot(target: Tensor, classes: int) -> Tensor:
    """Return the one-hot mask, int64 (N,) -> bool (N, K). Rows with a target outside 0..K-1 have no True."""
    return target[:, None] == torch.arange(classes, device=target.device)


def _get_row_weight(weight: Tensor, target: Tensor, like: Tensor) -> Tensor:
    """Return the weight of each row's target, (N,). It is 1 without weights and for targets outside."""
    ones = like.new_ones(len(target))
    if not weight.numel():
        return ones
    known = (target >= 0) & (target < len(weight))
    return torch.where(known, weight.to(like.dtype)[target.clamp(0, len(weight) - 1)], ones)


def _get_target_probability(probabilities: Tensor, target: Tensor) -> Tensor:
    """Return p of the target, (N, K), (N,) -> (N,), at least the smallest normal number for a finite logarithm."""
    index = target.clamp(0, probabilities.shape[1] - 1)[:, None]
    p = widen(probabilities).gather(1, index)[:, 0]
    return p.clamp(min=torch.finfo(p.dtype).tiny)
