"""Attention maps and tokens of a forward pass, from PiT, DeepViT and timm's ViT, DeiT and PiT."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.models.vision_transformer import Attention as TimmAttention
from torch import Tensor, nn

from pit_downstream.utils.errors import InputError


@dataclass(frozen=True)
class Trace:
    """Attention maps and tokens of the last forward pass, by layer in block order.

    A layer is 'block4', or 'stage2.block4' in PiT.
    maps: type -> layer -> (B, heads, N, N), rows are queries. Types: 'softmax' (before dropout) and, for
    Re-attention, 'reattention' (the maps that multiply the values).
    tokens: layer -> (B, N, D), the block's output. The prefix (class tokens, registers) comes first.
    grids: layer -> (h, w). The last h * w of the N tokens are the patches in row-major order.
    All tensors are differentiable if the forward pass is.
    """

    maps: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    tokens: dict[str, Tensor] = field(default_factory=dict)
    grids: dict[str, tuple[int, int]] = field(default_factory=dict)

    def clear(self) -> None:
        for seen in (self.maps, self.tokens, self.grids):
            seen.clear()

    def count_prefix_tokens(self, layer: str) -> int:
        """Return the number of tokens before the patches."""
        height, width = self.grids[layer]
        count = self.tokens[layer].shape[1] - height * width
        if count < 0:
            raise InputError(f'expected a token for each of the {height}x{width} patches at {layer}, got '
                             f'{self.tokens[layer].shape[1]} tokens; trace the model without patch dropout')
        return count


@contextmanager
def trace_attention(model: nn.Module) -> Iterator[Trace]:
    """Record attention maps and tokens of `model` inside the context. Every forward pass refills the trace.

    The maps are computed in addition to the fused kernel, so outputs are bit-identical. All hooks are removed on exit.
    Supported models: this package's PiT and DeepViT (backbones and classifiers), and timm models whose blocks use
    `timm.layers.Attention` (ViT, DeiT, PiT), also inside a wrapper or a detector.
    Raises InputError for any other model.
    """
    trunk = _find_trunk(model)
    blocks = list(_iterate_blocks(trunk))
    for layer, block in blocks:
        _require_tap(block, layer)
    trace = Trace()
    with ExitStack() as taps:
        taps.enter_context(_remove_on_exit(trunk.register_forward_pre_hook(lambda *_: trace.clear())))
        for layer, block in blocks:
            taps.enter_context(_record_block(block, layer, trace))
        for hook in _register_grid_hooks(trunk, trace):
            taps.enter_context(_remove_on_exit(hook))
        yield trace


def _find_trunk(model: nn.Module) -> Any:
    """Return the module with the stem and the blocks: `model` itself or its first such submodule."""
    for module in model.modules():
        if hasattr(module, 'patch_embed') and (hasattr(module, 'transformers') or hasattr(module, 'blocks')):
            return module
    raise InputError(f"expected PiT, DeepViT or one of timm's ViT and DeiT, got {type(model).__name__}, which has no "
                     'patches and transformer blocks')


def _iterate_blocks(trunk: Any) -> Iterator[tuple[str, Any]]:
    """Yield (layer, block), numbered from 1."""
    if hasattr(trunk, 'transformers'):
        for i, stage in enumerate(trunk.transformers, start=1):
            yield from ((f'stage{i}.block{j}', block) for j, block in enumerate(stage.blocks, start=1))
    else:
        yield from ((f'block{i}', block) for i, block in enumerate(trunk.blocks, start=1))


def _require_tap(block: Any, layer: str) -> None:
    attention = getattr(block, 'attn', None)
    cls = type(attention)
    if not hasattr(attention, 'tap') and cls is not TimmAttention:
        raise InputError(f'expected the attention of PiT, DeepViT or timm.layers.Attention, got {cls.__module__}.'
                         f'{cls.__name__} at {layer}; such a model cannot be traced')
    if getattr(attention, 'tap', None) is not None:
        raise InputError('expected a model that is not being traced, got one that is; leave the first trace first')


@contextmanager
def _record_block(block: Any, layer: str, trace: Trace) -> Iterator[None]:
    def keep(maps: dict[str, Tensor]) -> None:
        for map_type, values in maps.items():
            trace.maps.setdefault(map_type, {})[layer] = values

    def keep_tokens(block: nn.Module, args: tuple, tokens: Tensor) -> None:
        trace.tokens[layer] = tokens

    attention = block.attn
    with ExitStack() as taps:
        taps.enter_context(_remove_on_exit(block.register_forward_hook(keep_tokens)))
        if isinstance(attention, TimmAttention):
            taps.enter_context(_remove_on_exit(attention.register_forward_pre_hook(
                lambda attention, args, kwargs: keep({'softmax': _compute_timm_map(attention, *args, **kwargs)}),
                with_kwargs=True)))
        else:
            attention.tap = keep
            taps.callback(delattr, attention, 'tap')
        yield


@contextmanager
def _remove_on_exit(handle: torch.utils.hooks.RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def _compute_timm_map(attention: TimmAttention, tokens: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
              ) -> Tensor:
    """Compute the map that timm's fused kernel does not store. tokens: (B, N, D).

    Returns (B, heads, N, N) in float32 or float64.
    """
    if attn_mask is not None or is_causal:
        raise InputError('expected attention over all tokens, got a mask; such a model cannot be traced')
    q, k, _ = attention.qkv(tokens).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = attention.q_norm(q), attention.k_norm(k)
    dtype = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        return (attention.scale * q.to(dtype) @ k.to(dtype).mT).softmax(-1)


def _register_grid_hooks(trunk: Any, trace: Trace) -> Iterator[torch.utils.hooks.RemovableHandle]:
    """Register hooks that record the grid of every block: from PiT's stage outputs, otherwise from the stem."""
    if hasattr(trunk, 'transformers'):
        for i, stage in enumerate(trunk.transformers, start=1):
            layers = [f'stage{i}.block{j}' for j in range(1, len(stage.blocks) + 1)]
            yield stage.register_forward_hook(
                lambda stage, args, out, layers=layers: trace.grids.update(dict.fromkeys(layers, _get_size(out[0]))))
    else:
        layers = [layer for layer, _ in _iterate_blocks(trunk)]
        yield trunk.patch_embed.register_forward_hook(
            lambda stem, args, out: trace.grids.update(dict.fromkeys(layers, _get_stem_grid(stem, args[0], out))))


def _get_stem_grid(stem: Any, images: Tensor, out: Tensor) -> tuple[int, int]:
    """Return the grid of the stem. timm's output may be (B, N, D) or channels-last, ours is (B, D, h, w)."""
    if hasattr(stem, 'dynamic_feat_size'):
        return tuple(stem.dynamic_feat_size(_get_size(images)))
    return _get_size(out)


def _get_size(grid: Tensor) -> tuple[int, int]:
    height, width = grid.shape[-2:]
    return height, width
