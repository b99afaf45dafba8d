"""PiT, the Pooling-based Vision Transformer (Heo et al. 2021, arXiv 2103.16302), as a detection backbone.

Architecture and parameter names follow the official repository, github.com/naver-ai/pit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pit_downstream.backbones.multi_scale import EMBEDDINGS, DetectionBackbone, require_frozen, require_outputs
from pit_downstream.backbones.layers import Block, GridCache, forget_grids
from pit_downstream.backbones.weights import PIT

StemPadding = Literal['valid', 'same']


@dataclass(frozen=True)
class PitArch:
    """Architecture of one PiT. `heads` and `depths` are per stage. The width of a stage is head_dim * heads."""

    patch_size: int
    stride: int
    head_dim: int
    heads: tuple[int, int, int]
    depths: tuple[int, int, int]

    @property
    def widths(self) -> tuple[int, int, int]:
        return tuple(self.head_dim * heads for heads in self.heads)

    @property
    def strides(self) -> tuple[int, int, int]:
        return self.stride, 2 * self.stride, 4 * self.stride

    def drop_path(self, rate: float) -> list[list[float]]:
        """Return rate * i / (number of blocks) per stage and block, as the official code does."""
        total = sum(self.depths)
        rates = iter(rate * i / total for i in range(total))
        return [[next(rates) for _ in range(depth)] for depth in self.depths]


ARCHS = {  # naver-ai/pit, pit.py
    'ti': PitArch(16, 8, 32, (2, 4, 8), (2, 6, 4)),
    'xs': PitArch(16, 8, 48, (2, 4, 8), (2, 6, 4)),
    's': PitArch(16, 8, 48, (3, 6, 12), (2, 6, 4)),
    'b': PitArch(14, 7, 64, (4, 8, 16), (3, 6, 4)),
}


class PatchEmbed(nn.Module):
    """Overlapping patches: a convolution with kernel `patch_size` and stride `stride`.

    images: (B, C, H, W). Returns (B, D, h, w). Padding 'valid' gives h = floor((H - patch) / stride) + 1 as in the
    paper. 'same' gives h = ceil(H / stride) with zeros on both sides.
    """

    def __init__(self, in_channels: int, width: int, arch: PitArch, *, padding: StemPadding = 'valid'):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, arch.patch_size, arch.stride)
        self.padding = padding

    def forward(self, images: Tensor) -> Tensor:
        if self.padding == 'same':
            images = F.pad(images, self._margins(images.shape[-1]) + self._margins(images.shape[-2]))
        return self.conv(images)

    def _margins(self, side: int) -> tuple[int, int]:
        patch, stride = self.conv.kernel_size[0], self.conv.stride[0]
        total = (-(-side // stride) - 1) * stride + patch - side
        return total // 2, total - total // 2


class Pool(nn.Module):
    """Pooling layer. A grouped 3x3 convolution halves and widens the grid, a linear layer widens the class tokens.

    grid: (B, C, h, w); cls: (B, T, C). Returns (B, C', ceil(h / 2), ceil(w / 2)) and (B, T, C').
    """

    def __init__(self, width: int, out_width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, out_width, 3, 2, 1, groups=width)
        self.fc = nn.Linear(width, out_width)

    def forward(self, grid: Tensor, cls: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv(grid), self.fc(cls)


class Stage(nn.Module):
    """Transformer blocks of one resolution, applied to class tokens and grid together.

    grid: (B, C, h, w); cls: (B, T, C). Returns both in the same shapes, the grid contiguous.
    """

    def __init__(self, width: int, heads: int, drop_path: Sequence[float], *, with_cp: bool = False,
                 drop: float = 0.0, attn_drop: float = 0.0):
        super().__init__()
        self.with_cp = with_cp
        self.blocks = nn.ModuleList(
            Block(width, heads, drop=drop, attn_drop=attn_drop, drop_path=rate) for rate in drop_path)

    def forward(self, grid: Tensor, cls: Tensor) -> tuple[Tensor, Tensor]:
        tokens = torch.cat((cls, grid.flatten(2).transpose(1, 2)), dim=1)
        for block in self.blocks:
            if self.with_cp and self.training:
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        cls, space = tokens.split((cls.shape[1], tokens.shape[1] - cls.shape[1]), dim=1)
        return space.transpose(1, 2).reshape(grid.shape).contiguous(), cls


class PitTrunk(BaseModule):
    """Parts shared by classifier and backbone: stem, position embedding, class tokens, stages and pools."""

    def __init__(self, arch: str, stages: int, *, distilled: bool = False, img_size: int = 224, in_chans: int = 3,
                 stem_padding: StemPadding = 'valid', drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0, with_cp: bool = False, init_cfg: dict | None = None):
        super().__init__(init_cfg=init_cfg)
        if arch not in ARCHS:
            raise ValueError(f'arch is one of {", ".join(ARCHS)}, got {arch!r}')
        if stem_padding not in ('valid', 'same'):
            raise ValueError(f"stem_padding is 'valid' or 'same', got {stem_padding!r}")
        self.arch = ARCHS[arch]
        widths = self.arch.widths
        side = (img_size - self.arch.patch_size) // self.arch.stride + 1
        self.pos_embed = nn.Parameter(torch.empty(1, widths[0], side, side))
        self.cls_token = nn.Parameter(torch.empty(1, 2 if distilled else 1, widths[0]))
        self.patch_embed = PatchEmbed(in_chans, widths[0], self.arch, padding=stem_padding)
        self.pos_drop = nn.Dropout(drop_rate)
        rates = self.arch.drop_path(drop_path_rate)
        self.transformers = nn.ModuleList(
            Stage(widths[i], self.arch.heads[i], rates[i], with_cp=with_cp, drop=drop_rate, attn_drop=attn_drop_rate)
            for i in range(stages))
        self.pools = nn.ModuleList(Pool(widths[i], widths[i + 1]) for i in range(stages - 1))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self._grids = GridCache()
        self.register_load_state_dict_post_hook(forget_grids)

    def train(self, mode: bool = True) -> 'PitTrunk':
        self._grids.clear()
        return super().train(mode)

    def run_stages(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return per stage the grid (B, C, h, w) and class tokens (B, T, C). images: (B, 3, H, W), normalized."""
        smallest = self.arch.patch_size
        if self.patch_embed.padding == 'valid' and any(side < smallest for side in images.shape[-2:]):
            raise ValueError(f'expected images of at least {smallest}x{smallest} pixels, got '
                             f'{images.shape[-2]}x{images.shape[-1]}; enlarge them or use stem_padding="same"')
        grid = self.patch_embed(images)
        grid = self.pos_drop(grid + self._grids.get(self.pos_embed, tuple(grid.shape[-2:])))
        cls = self.cls_token.expand(images.shape[0], -1, -1)
        outputs = []
        for i, stage in enumerate(self.transformers):
            if i:
                grid, cls = self.pools[i - 1](grid, cls)
            grid, cls = stage(grid, cls)
            outputs.append((grid, cls))
        return outputs


class PiT(DetectionBackbone, PitTrunk):
    """PiT as a detection backbone: images (B, 3, H, W), normalized, H and W >= 32 -> tuple of (B, C_i, h_i, w_i).

    arch: 'ti', 'xs', 's' or 'b'. out_indices: returned stages, out of 0, 1, 2. Later stages are not built.
    out_channels, out_strides: widths and strides of the returned maps (8, 16, 32; 'b': 7, 14, 28).
    stem_padding: 'valid' as in the paper, or 'same' for grids of exactly ceil(side / stride).
    frozen_stages: -1 freezes nothing; k >= 0 freezes the stem, the first k stages and the pools between them.
    out_norm: a LayerNorm `norm{i}` per returned map. The paper's classifier normalizes only its class token.
    with_cp: recompute the blocks in the backward pass instead of storing them.
    distilled: use two class tokens, as the distilled models. Checkpoints of both types load into either if possible.
    img_size: side of the images that `pos_embed` is stored for. It is resampled for any other size.
    Loading converts any PiT checkpoint (see weights.py), logs a report, and raises ValueError on a mismatch.
    """

    family = PIT

    def __init__(self, arch: str = 's', *, out_indices: Sequence[int] = (0, 1, 2), frozen_stages: int = -1,
                 out_norm: bool = True, **kwargs):
        out_indices = tuple(out_indices)
        require_outputs(out_indices, 3)
        require_frozen(frozen_stages, 3)
        super().__init__(arch, out_indices[-1] + 1, **kwargs)
        self.out_indices = out_indices
        self.out_channels = tuple(self.arch.widths[i] for i in out_indices)
        self.out_strides = tuple(self.arch.strides[i] for i in out_indices)
        for i in out_indices:
            self.add_module(f'norm{i}', nn.LayerNorm(self.arch.widths[i], eps=1e-6) if out_norm else nn.Identity())
        self._settle(frozen_stages)

    def _maps(self, images: Tensor) -> tuple[Tensor, ...]:
        stages = self.run_stages(images)
        return tuple(self._normalize(i, stages[i][0]) for i in self.out_indices)

    def _normalize(self, level: int, grid: Tensor) -> Tensor:
        norm = getattr(self, f'norm{level}')
        if isinstance(norm, nn.Identity):
            return grid
        return norm(grid.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()

    def _frozen(self) -> Iterator[nn.Module | nn.Parameter]:
        yield from (self.pos_embed, self.cls_token, self.patch_embed, self.pos_drop)
        yield from self.transformers[:self.frozen_stages]
        yield from self.pools[:max(self.frozen_stages - 1, 0)]

    def _layers(self) -> list[tuple[str, ...]]:
        """Return the names of the parts of each layer. A pool belongs to the block after it."""
        layers = [EMBEDDINGS]
        for i, stage in enumerate(self.transformers):
            layers += [(f'transformers.{i}.blocks.{j}',) for j in range(len(stage.blocks))]
            if i:
                layers[-len(stage.blocks)] += (f'pools.{i - 1}',)
        return layers
