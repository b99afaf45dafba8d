"""Layers shared by all transformer backbones."""

from collections import OrderedDict
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from pit_downstream.utils.errors import InputError


class Attention(nn.Module):
    """Multi-head self-attention with PyTorch's fused kernel, which never stores the N x N map.

    tokens: (B, N, D). Returns (B, N, D). Parameter names are those of timm and of the official code.
    """

    tap: Callable[[dict[str, Tensor]], None] | None = None  # if set, called with the maps of every forward pass

    def __init__(self, width: int, heads: int, *, attn_drop: float = 0.0, proj_drop: float = 0.0):
        super().__init__()
        if width % heads:
            raise InputError(f'width must be a multiple of the {heads} heads, got {width}')
        self.heads = heads
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, self.heads, width // self.heads)  # -1 fails for an empty batch
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.tap is not None:
            self.tap(self.compute_maps(q, k))
        mixed = self.attend(q, k, v)
        return self.proj_drop(self.proj(mixed.transpose(1, 2).reshape(batch, count, width)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Compute softmax(q k^T / sqrt(d)) v. q, k, v: (B, H, N, d). Returns (B, H, N, d)."""
        return F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop if self.training else 0.0)

    def compute_maps(self, q: Tensor, k: Tensor) -> dict[str, Tensor]:
        """Return the attention maps by type, here one: q, k (B, H, N, d) -> {'softmax': (B, H, N, N)}."""
        return {'softmax': compute_softmax_map(q, k)}


def compute_softmax_map(q: Tensor, k: Tensor) -> Tensor:
    """Compute softmax(q k^T / sqrt(d)), (B, H, N, N), for q, k (B, H, N, d), before dropout, in float32 or better."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        return (q.to(dtype) * q.shape[-1] ** -0.5 @ k.to(dtype).mT).softmax(-1)


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)).

    tokens: (B, N, D). Returns (B, N, D). drop_path: probability of skipping a residual branch, in [0, 1). attention:
    builds the attention from the arguments of `Attention`.
    """

    def __init__(self, width: int, heads: int, *, mlp_ratio: float = 4.0, drop: float = 0.0, attn_drop: float = 0.0,
                 drop_path: float = 0.0, attention: Callable[..., nn.Module] = Attention):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = attention(width, heads, attn_drop=attn_drop, proj_drop=drop)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio), drop=drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


def resize_grid(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample a position embedding (1, D, h, w) to (1, D, *size): bicubic in float32, antialiased when it shrinks.

    For the same size the tensor itself is returned, so a forward pass at native size is exact.
    """
    height, width = grid.shape[-2:]
    if (height, width) == tuple(size):
        return grid
    shrinks = size[0] < height or size[1] < width
    resized = F.interpolate(grid.float(), size=size, mode='bicubic', align_corners=False, antialias=shrinks)
    return resized.to(grid.dtype)


def clear_grids(trunk: nn.Module, *_) -> None:
    """Clear resized embeddings after new weights are loaded. Post-hook of load_state_dict."""
    cast(GridCache, trunk._grids).clear()


class GridCache:
    """Cache of the most recently resized position embeddings, for evaluation.

    A parameter can change undetected: fused optimizers, and EMA through `.data`, keep its version. The owner therefore
    clears the cache when train() or eval() is called and when weights are loaded.
    """

    def __init__(self, entries: int = 8):
        self.entries = entries
        self._resized: OrderedDict[tuple, Tensor] = OrderedDict()

    def __deepcopy__(self, memo: dict) -> 'GridCache':
        return type(self)(self.entries)

    def __reduce__(self) -> tuple:
        return type(self), (self.entries,)

    def __len__(self) -> int:
        return len(self._resized)

    def clear(self) -> None:
        self._resized.clear()

    def get(self, grid: Tensor, size: tuple[int, int]) -> Tensor:
        """Return `resize_grid(grid, size)`, uncached if `grid` may need a gradient or during compilation."""
        if torch.compiler.is_compiling() or grid.requires_grad and torch.is_grad_enabled():
            return resize_grid(grid, size)
        key = (size, grid.data_ptr(), grid._version, grid.dtype, torch.is_inference_mode_enabled())
        if key not in self._resized:
            self._resized[key] = resize_grid(grid, size)
            if len(self._resized) > self.entries:
                self._resized.popitem(last=False)
        return self._resized[key]
