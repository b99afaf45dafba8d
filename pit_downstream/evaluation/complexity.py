"""Cost of one forward pass: parameters, MACs, FLOPs and activations, in total and per part of the model.

FLOPs are those of torch's FlopCounterMode: two per multiply-add of convolutions, linear layers and attention. MACs are
half of them. timm and torchvision report MACs, and many papers call them "FLOPs". Elementwise operations (see
ValueCounter) are in neither and are counted separately. MACs plus one per elementwise operation are the FLOPs of the
PiT paper. Pooling, interpolation, the sampling of deformable attention and NMS are not counted.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from pit_downstream.utils.errors import InputError

ATEN = torch.ops.aten
FUSED_ON_CPU = ATEN._scaled_dot_product_flash_attention_for_cpu  # missing from torch's table, which would count 0
FUSED = {FUSED_ON_CPU, ATEN._scaled_dot_product_flash_attention, ATEN._scaled_dot_product_efficient_attention,
         ATEN._scaled_dot_product_cudnn_attention}
PRODUCTS = {ATEN.convolution, ATEN.mm, ATEN.addmm, ATEN.bmm, ATEN.baddbmm}
PER_VALUE = {ATEN._softmax, ATEN._safe_softmax, ATEN.softmax, ATEN.native_layer_norm, ATEN.native_batch_norm,
             ATEN._native_batch_norm_legit_no_training, ATEN.cudnn_batch_norm, ATEN.native_group_norm,
             ATEN.hardswish, ATEN.hardswish_}  # in addition to torch's pointwise tag
REST = 'the rest'  # parameters and arithmetic outside all parts


@dataclass(frozen=True)
class Part:
    """A submodule by its dotted name, or REST."""

    name: str
    parameters: int
    flops: int

    @property
    def macs(self) -> int:
        return self.flops // 2


@dataclass(frozen=True)
class Complexity:
    """Cost of one image's forward pass. For `activations` and `elementwise` see ValueCounter."""

    parts: tuple[Part, ...]
    activations: int
    elementwise: int

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    @property
    def flops(self) -> int:
        return sum(part.flops for part in self.parts)

    @property
    def macs(self) -> int:
        return self.flops // 2


def classifier_complexity(model: nn.Module, height: int, width: int) -> Complexity:
    """Compute the cost of a model for images (1, 3, height, width).

    A copy runs on the meta device, without memory or arithmetic. If it needs tensor values, which that device lacks, it
    runs on the CPU. Raises InputError if the model does not accept this size.
    """
    for device in ('meta', 'cpu'):
        copied = deepcopy(model).eval().requires_grad_(False).to(device)
        images = torch.zeros(1, 3, height, width, device=device)
        try:
            copied(images)
        except (RuntimeError, AssertionError, ValueError) as error:
            refused = error
        else:
            return complexity(copied, partial(copied, images))
    raise InputError(f'expected a size that the model takes, got {height} x {width}: '
                     f'{(str(refused) or type(refused).__name__).splitlines()[0]}; give another --shape') from refused


def complexity(model: nn.Module, run: Callable[[], Any], *, split: tuple[str, ...] = ()) -> Complexity:
    """Compute the cost of `run`, which calls `model` for one image. Parameters must not require gradients.

    `split` names children that are replaced by their own children as parts.
    """
    parts = dict(parts_of(model, split))
    counter, values = FlopCounterMode(display=False, custom_mapping={FUSED_ON_CPU: attention_flops}), ValueCounter()
    with without_shortcuts(), torch.no_grad(), values, counter, attributed(parts, counter) as flops:
        run()
    owners = {id(parameter): name for name, part in reversed(parts.items()) for parameter in part.parameters()}
    sizes = dict.fromkeys((*parts, REST), 0)
    for parameter in model.parameters():
        sizes[owners.get(id(parameter), REST)] += parameter.numel()
    flops[REST] = counter.get_total_flops() - sum(flops.values())
    return Complexity(tuple(Part(name, sizes[name], flops[name]) for name in sizes if sizes[name] or flops[name]),
                      values.activations, values.elementwise)


def parts_of(model: nn.Module, split: tuple[str, ...] = ()) -> Iterator[tuple[str, nn.Module]]:
    """Yield the model's children by name. Module lists and the children in `split` are expanded."""
    for name, child in model.named_children():
        if name in split or isinstance(child, nn.ModuleList):
            yield from ((f'{name}.{inner}', module) for inner, module in parts_of(child))
        else:
            yield name, child


def attention_flops(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any) -> int:
    """Return the FLOPs of softmax(q k^T) v from the shapes of q, k, v (B, H, N, d)."""
    return sdpa_flop_count(q, k, v)


@contextmanager
def attributed(parts: dict[str, nn.Module], counter: FlopCounterMode) -> Iterator[dict[str, int]]:
    """Yield FLOPs per part, filled in the block. Calls of any module inside a part count for the part."""
    flops, began, hooks = dict.fromkeys(parts, 0), [], []
    for name, part in parts.items():
        def enter(*_: Any) -> None:
            began.append(counter.get_total_flops())

        def leave(*_: Any, name: str = name) -> None:
            start = began.pop()
            if not began:  # the outermost module
                flops[name] += counter.get_total_flops() - start
        for module in part.modules():
            hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield flops
    finally:
        for hook in hooks:
            hook.remove()


class ValueCounter(TorchDispatchMode):
    """Counter of operator output values.

    `activations` counts convolutions, linear layers and matrix products, as fvcore does and timm publishes. Attention
    maps are included even if a fused kernel never stores them. `elementwise` counts biases, sums, norms, activation
    functions, and the scale and softmax of attention, one per value.
    """

    def __init__(self) -> None:
        super().__init__()
        self.activations = self.elementwise = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        found = func(*args, **(kwargs or {}))
        out, operator = found[0] if isinstance(found, tuple | list) else found, func.overloadpacket
        if operator in PRODUCTS:
            self.activations += out.numel()
            biased = operator is ATEN.addmm or operator is ATEN.convolution and args[2] is not None
            self.elementwise += out.numel() if biased else 0
        elif operator in FUSED:
            self._attention(*args[:3])
        elif operator in PER_VALUE or torch.Tag.pointwise in func.tags and operator is not ATEN.clone:
            self.elementwise += out.numel()
        return found

    def _attention(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Count as the unfused operators would: queries and keys are each scaled by the root of the scale."""
        maps = prod(q.shape[:-1]) * k.shape[-2]
        self.activations += maps + prod(q.shape[:-1]) * v.shape[-1]
        self.elementwise += maps + q.numel() + k.numel()


@contextmanager
def without_shortcuts() -> Iterator[None]:
    """Disable the inference kernel of nn.MultiheadAttention, which hides its arithmetic, for the equivalent path."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
