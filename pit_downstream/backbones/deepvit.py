"""DeepViT (Zhou et al. 2021, arXiv 2103.11886) and plain ViTs: the parts shared by classifier and detection backbone.

Architecture and parameter names follow the official repository, github.com/zhoudaquan/dvit_repo.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pit_downstream.backbones.layers import Attention, Block, GridCache, forget_grids
from pit_downstream.backbones.reattention import ReAttention, FrozenBatchNormStatistics

PATCH = 16  # side of a patch in pixels, for every model


@dataclass(frozen=True)
class DeepVitArch:
    """Architecture of one model. The first `plain` blocks use standard attention, the others Re-attention.

    conv_stem: two convolutions before the patches. adjust: factor of the inputs of a block's branches, and divisor of
    their outputs. transform_scale: maps also scaled by 1 / sqrt(head dim). img_size: side of training images.
    """

    width: int
    heads: int
    depth: int
    plain: int = 0
    mlp_ratio: float = 3.0
    conv_stem: bool = False
    adjust: float = 1.0
    transform_scale: bool = False
    img_size: int = 224


ARCHS = {  # dvit_repo, models/deep_vision_transformer.py
    '16': DeepVitArch(384, 12, 16),
    '24': DeepVitArch(384, 12, 24),
    '32': DeepVitArch(384, 12, 32),
    's': DeepVitArch(396, 12, 16, plain=11, conv_stem=True, adjust=0.5, transform_scale=True),
    'l': DeepVitArch(420, 12, 32, plain=20, conv_stem=True, adjust=0.5),
    'l_384': DeepVitArch(420, 12, 32, plain=20, conv_stem=True, adjust=0.5, img_size=384),
    'vit_16': DeepVitArch(384, 12, 16, plain=16),  # the paper's table 1 without Re-attention
    'vit_24': DeepVitArch(384, 12, 24, plain=24),
    'vit_32': DeepVitArch(384, 12, 32, plain=32),
    'vit_s': DeepVitArch(384, 6, 12, plain=12, mlp_ratio=4.0),  # DeiT-S, the counterpart of PiT-S in the PiT paper
}


def find_arch(name: str) -> DeepVitArch:
    if name not in ARCHS:
        raise ValueError(f'arch is one of {", ".join(ARCHS)}, got {name!r}')
    return ARCHS[name]


class PatchEmbed(nn.Module):
    """Non-overlapping patches of 16 x 16 pixels. images: (B, C, H, W). Returns (B, D, ceil(H / 16), ceil(W / 16)).

    Sides that are not multiples of 16 are zero-padded on the right and bottom.
    """

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, PATCH, PATCH)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(fill_up(images))


class ConvPatchEmbed(nn.Module):
    """Patches of the features of two convolutions. images: (B, C, H, W). Returns (B, D, ceil(H / 16), ceil(W / 16))."""

    def __init__(self, in_channels: int, width: int, *, stem_width: int = 64):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, stem_width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_width)
        self.conv2 = nn.Conv2d(stem_width, stem_width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem_width)
        self.proj = nn.Conv2d(stem_width, width, PATCH // 2, PATCH // 2)

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.bn1(self.conv1(fill_up(images))))
        return self.proj(F.relu(self.bn2(self.conv2(features))))


def fill_up(images: Tensor) -> Tensor:
    """Zero-pad on the right and bottom until both sides are multiples of the patch size."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % PATCH, 0, -height % PATCH)) if height % PATCH or width % PATCH else images


def both_passes(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Return the contexts of the forward pass and of its recomputation, for torch's checkpoint."""
    return nullcontext(), FrozenBatchNormStatistics(block)


class AdjustedBlock(Block):
    """Block with branch inputs scaled by `adjust` and branch outputs by 1 / adjust."""

    def __init__(self, *args, adjust: float, **kwargs):
        super().__init__(*args, **kwargs)
        self.adjust = adjust

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens * self.adjust))) / self.adjust
        return tokens + self.drop_path(self.mlp(self.norm2(tokens * self.adjust))) / self.adjust


class DeepVitTrunk(BaseModule):
    """Stem, class token, position embedding and blocks.

    depth: number of blocks to build, by default all. consistent: scale the maps of Re-attention by the number of
    tokens, so that features keep their magnitude at every resolution (see ReAttention). At `img_size` this has no
    effect. budget: bytes for one chunk of the maps (see `default_budget`). img_size: side of the training images, by
    default that of the arch. `pos_embed` is stored for this size and resampled for any other.
    """

    def __init__(self, arch: str, *, depth: int | None = None, consistent: bool = False, img_size: int | None = None,
                 in_chans: int = 3, drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0,
                 with_cp: bool = False, budget: int | None = None, init_cfg: dict | None = None):
        super().__init__(init_cfg=init_cfg)
        self.arch = find_arch(arch)
        self.with_cp = with_cp
        self.side = -(-(img_size or self.arch.img_size) // PATCH)
        self.cls_token = nn.Parameter(torch.empty(1, 1, self.arch.width))
        self.pos_embed = nn.Parameter(torch.empty(1, self.side ** 2 + 1, self.arch.width))
        stem = ConvPatchEmbed if self.arch.conv_stem else PatchEmbed
        self.patch_embed = stem(in_chans, self.arch.width)
        self.pos_drop = nn.Dropout(drop_rate)
        base_tokens = self.side ** 2 + 1 if consistent else None
        reattention = partial(ReAttention, transform_scale=self.arch.transform_scale, base_tokens=base_tokens,
                              budget=budget)
        rates = torch.linspace(0, drop_path_rate, self.arch.depth, device='cpu').tolist()[:depth]
        self.blocks = nn.ModuleList(
            self._block(Attention if i < self.arch.plain else reattention, drop=drop_rate, attn_drop=attn_drop_rate,
                        drop_path=rate) for i, rate in enumerate(rates))
        self._initialise()
        self._grids = GridCache()
        self.register_load_state_dict_post_hook(forget_grids)

    def train(self, mode: bool = True) -> 'DeepVitTrunk':
        self._grids.clear()
        return super().train(mode)

    def run_blocks(self, images: Tensor, keep: Sequence[int]) -> tuple[list[Tensor], tuple[int, int]]:
        """Run the blocks. images: (B, 3, H, W), normalized.

        Returns the tokens (B, 1 + h w, D) after the blocks `keep`, and (h, w).
        """
        tokens, size = self.embed(images)
        outputs = []
        for i, block in enumerate(self.blocks):
            if self.with_cp and self.training:
                tokens = checkpoint(block, tokens, use_reentrant=False, context_fn=partial(both_passes, block))
            else:
                tokens = block(tokens)
            if i in keep:
                outputs.append(tokens)
        return outputs, size

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Embed images (B, 3, H, W).

        Returns the tokens of the first block (B, 1 + h w, D), class token first, and (h, w).
        """
        grid = self.patch_embed(images)
        size = tuple(grid.shape[-2:])
        stored = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (self.side, self.side))  # a view, for the cache
        grid = grid + self._grids.get(stored, size)
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(images.shape[0], -1, -1)
        return self.pos_drop(torch.cat((cls, grid.flatten(2).transpose(1, 2)), dim=1)), size

    def _block(self, attention: type[nn.Module] | partial, **kwargs) -> Block:
        sizes = dict(mlp_ratio=self.arch.mlp_ratio, attention=attention, **kwargs)
        if self.arch.adjust == 1:
            return Block(self.arch.width, self.arch.heads, **sizes)
        return AdjustedBlock(self.arch.width, self.arch.heads, adjust=self.arch.adjust, **sizes)

    def _initialise(self) -> None:
        """Initialize as the official code: std 0.02, biases 0, PyTorch's default for convolutions."""
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
