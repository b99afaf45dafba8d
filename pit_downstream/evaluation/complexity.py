"""What one forward pass of a model costs by arithmetic: parameters, MACs, FLOPs, activations, and which part has them.

FLOPs are those of torch's FlopCounterMode: two for every multiply-add of convolutions, linear layers and attention.
MACs are half of them: what timm and torchvision print, and many papers as "FLOPs". Beside them stand the elementwise
operations (see ValueCounter), which neither counts: with one for each, MACs become the FLOPs of the PiT paper. Nothing
counts pooling, interpolation, the sampling of deformable attention, or NMS.
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

ATEN = torch.ops.aten
FUSED_ON_CPU = ATEN._scaled_dot_product_flash_attention_for_cpu  # lacks in torch's table, would cost nothing
FUSED = {FUSED_ON_CPU, ATEN._scaled_dot_product_flash_attention, ATEN._scaled_dot_product_efficient_attention,
         ATEN._scaled_dot_product_cudnn_attention}
PRODUCTS = {ATEN.convolution, ATEN.mm, ATEN.addmm, ATEN.bmm, ATEN.baddbmm}
PER_VALUE = {ATEN._softmax, ATEN._safe_softmax, ATEN.softmax, ATEN.native_layer_norm, ATEN.native_batch_norm,
             ATEN._native_batch_norm_legit_no_training, ATEN.cudnn_batch_norm, ATEN.native_group_norm,
             ATEN.hardswish, ATEN.hardswish_}  # beside what torch itself calls pointwise
REST = 'the rest'  # parameters and arithmetic of no part


@dataclass(frozen=True)
class Part:
    """A module of the model by its dotted name, or REST."""

    name: str
    parameters: int
    flops: int

    @property
    def macs(self) -> int:
        return self.flops // 2


@dataclass(frozen=True)
class Complexity:
    """One image's forward pass. activations, elementwise: see ValueCounter."""

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
    """Of a module of images (1, 3, height, width). It runs as a copy on the meta device, without memory or arithmetic.

    A model that asks for values, which that device has not, runs on a CPU. Raises ValueError where it takes no images
    of this size.
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
    raise ValueError(f'expected a size that the model takes, got {height} x {width}: '
                     f'{(str(refused) or type(refused).__name__).splitlines()[0]}; give another --shape') from refused


def complexity(model: nn.Module, run: Callable[[], Any], *, split: tuple[str, ...] = ()) -> Complexity:
    """What `run`, which calls `model` for one image, costs. The parameters must not ask for gradients.

    split: names of children whose own children are parts, in place of them.
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
    """The model's children by name; lists of modules, and those named in `split`, are taken apart."""
    for name, child in model.named_children():
        if name in split or isinstance(child, nn.ModuleList):
            yield from ((f'{name}.{inner}', module) for inner, module in parts_of(child))
        else:
            yield name, child


def attention_flops(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any) -> int:
    """Of softmax(q k^T) v, by the shapes of q, k, v (B, H, N, d)."""
    return sdpa_flop_count(q, k, v)


@contextmanager
def attributed(parts: dict[str, nn.Module], counter: FlopCounterMode) -> Iterator[dict[str, int]]:
    """FLOPs by part, filled while entered. Any module inside a part counts for it, however it comes to be called."""
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
    """Counts values that operators put out.

    activations: of convolutions, linear layers and matrix products, attention maps among them even where a fused kernel
    never stores them; fvcore's count, which timm publishes.
    elementwise: biases, sums, norms, activation functions, and the scale and softmax of attention, one for each value.
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
        """What the unfused operators would count: queries and keys are scaled by the root of the scale each."""
        maps = prod(q.shape[:-1]) * k.shape[-2]
        self.activations += maps + prod(q.shape[:-1]) * v.shape[-1]
        self.elementwise += maps + q.numel() + k.numel()


@contextmanager
def without_shortcuts() -> Iterator[None]:
    """nn.MultiheadAttention's own kernel for inference hides its arithmetic; the usual path does the same."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
