"""Vision Transformer with one grid of 16 x 16 patches: stems, blocks, trunk, and feature pyramids for detection.

DeepViT and the plain ViTs of deepvit.py are built on it. Architecture and parameter names follow the official
repository of DeepViT, github.com/zhoudaquan/dvit_repo.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pit_downstream.backbones.layers import Attention, Block, GridCache, clear_grids

if TYPE_CHECKING:
    from typing_extensions import Self

PATCH = 16  # side of a patch in pixels, for every model
STRIDES = (4, 8, 16, 32)  # of the feature pyramids


@dataclass(frozen=True)
class VitArch:
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


class PatchEmbed(nn.Module):
    """Non-overlapping patches of 16 x 16 pixels. images: (B, C, H, W). Returns (B, D, ceil(H / 16), ceil(W / 16)).

    Sides that are not multiples of 16 are zero-padded on the right and bottom.
    """

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, PATCH, PATCH)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(pad_to_patches(images))


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
        features = F.relu(self.bn1(self.conv1(pad_to_patches(images))))
        return self.proj(F.relu(self.bn2(self.conv2(features))))


def pad_to_patches(images: Tensor) -> Tensor:
    """Zero-pad on the right and bottom until both sides are multiples of the patch size."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % PATCH, 0, -height % PATCH)) if height % PATCH or width % PATCH else images


class AdjustedBlock(Block):
    """Block with branch inputs scaled by `adjust` and branch outputs by 1 / adjust."""

    def __init__(self, *args, adjust: float, **kwargs):
        super().__init__(*args, **kwargs)
        self.adjust = adjust

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens * self.adjust))) / self.adjust
        return tokens + self.drop_path(self.mlp(self.norm2(tokens * self.adjust))) / self.adjust


class FrozenBatchNormStatistics(AbstractContextManager):
    """Context manager that freezes the running statistics of the norms in `module`. Batch statistics stay in use.

    For the second forward pass of a checkpointed block, which would count every batch twice.
    """

    def __init__(self, module: nn.Module):
        self._norms: list[Any] = [norm for norm in module.modules() if getattr(norm, 'track_running_stats', False)]

    def __enter__(self) -> None:
        for norm in self._norms:
            norm.track_running_stats = False

    def __exit__(self, *error: object) -> None:
        for norm in self._norms:
            norm.track_running_stats = True


class VitTrunk(nn.Module):
    """Stem, class token, position embedding and blocks.

    attention: builds the attention of a block that is not plain, from the arguments of `Attention`. depth: number of
    blocks to build, by default all. img_size: side of the training images, by default that of the arch. `pos_embed`
    is stored for this size and resampled for any other. with_cp: recompute the blocks in the backward pass.
    """

    def __init__(self, arch: VitArch, *, attention: Callable[..., nn.Module] = Attention, depth: int | None = None,
                 img_size: int | None = None, in_chans: int = 3, drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0, with_cp: bool = False):
        super().__init__()
        self.arch = arch
        self.with_cp = with_cp
        self.side = -(-(img_size or arch.img_size) // PATCH)
        self.cls_token = nn.Parameter(torch.empty(1, 1, arch.width))
        self.pos_embed = nn.Parameter(torch.empty(1, self.side ** 2 + 1, arch.width))
        self.patch_embed = (ConvPatchEmbed if arch.conv_stem else PatchEmbed)(in_chans, arch.width)
        self.pos_drop = nn.Dropout(drop_rate)
        block = Block if arch.adjust == 1 else partial(AdjustedBlock, adjust=arch.adjust)
        rates = torch.linspace(0, drop_path_rate, arch.depth, device='cpu').tolist()[:depth]
        self.blocks = nn.ModuleList(
            block(arch.width, arch.heads, mlp_ratio=arch.mlp_ratio, drop=drop_rate, attn_drop=attn_drop_rate,
                  drop_path=rate, attention=Attention if i < arch.plain else attention)
            for i, rate in enumerate(rates))
        self._init_parameters()
        self._grids = GridCache()
        self.register_load_state_dict_post_hook(clear_grids)

    def _init_parameters(self) -> None:
        """Initialize as the official code: std 0.02, biases 0, PyTorch's default for convolutions."""
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def train(self, mode: bool = True) -> 'Self':
        self._grids.clear()
        return super().train(mode)

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

    def run_blocks(self, images: Tensor, keep: Sequence[int]) -> tuple[list[Tensor], tuple[int, int]]:
        """Run the blocks. images: (B, 3, H, W), normalized.

        Returns the tokens (B, 1 + h w, D) after the blocks `keep`, and (h, w).
        """
        tokens, size = self.embed(images)
        outputs = []
        for i, block in enumerate(self.blocks):
            if self.with_cp and self.training:
                tokens = checkpoint(block, tokens, use_reentrant=False,
                                    context_fn=partial(_get_checkpoint_contexts, block))
            else:
                tokens = block(tokens)
            if i in keep:
                outputs.append(tokens)
        return outputs, size


def _get_checkpoint_contexts(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Return the contexts of the forward pass and of its recomputation, for torch's checkpoint."""
    return nullcontext(), FrozenBatchNormStatistics(block)


class StagePyramid(nn.Module):
    """Pyramid from maps of several depths, one per stride, of unchanged width.

    maps: one (B, D, h, w) of stride 16 per stride. Returns (B, D, h 16 / stride, w 16 / stride) each. Half of an odd
    side is rounded up. Follows the detectors of BEiT and XCiT (El-Nouby et al. 2021, 2106.09681).
    """

    def __init__(self, width: int, strides: Sequence[int]):
        super().__init__()
        self.out_channels = (width,) * len(strides)
        self.levels = nn.ModuleList(build_resampling(width, stride, taper=1)[0] for stride in strides)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(level(grid) for level, grid in zip(self.levels, maps, strict=True))


class SimpleFeaturePyramid(nn.Module):
    """Pyramid from the last map only, with `out_channels` channels per stride (Li et al. 2022, ViTDet, 2203.16527).

    maps: one (B, D, h, w) of stride 16. Returns (B, out_channels, h 16 / stride, w 16 / stride) per stride. Half of an
    odd side is rounded up.
    """

    def __init__(self, width: int, strides: Sequence[int], *, out_channels: int = 256):
        super().__init__()
        self.out_channels = (out_channels,) * len(strides)
        self.levels = nn.ModuleList()
        for stride in strides:
            resampling, channels = build_resampling(width, stride, taper=2)
            self.levels.append(nn.Sequential(
                resampling,
                nn.Conv2d(channels, out_channels, 1, bias=False), LayerNorm2d(out_channels),
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), LayerNorm2d(out_channels)))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        [last] = maps
        return tuple(level(last) for level in self.levels)


def build_resampling(width: int, stride: int, *, taper: int) -> tuple[nn.Module, int]:
    """Return a module from stride 16 to `stride` and its output width. Each doubling divides the width by `taper`."""
    if stride == 32:
        return nn.MaxPool2d(2, 2, ceil_mode=True), width
    doublings = {16: 0, 8: 1, 4: 2}[stride]
    layers = []
    for i in range(doublings):
        if i:
            layers += [LayerNorm2d(width), nn.GELU()]
        layers.append(nn.ConvTranspose2d(width, width // taper, 2, 2))
        width //= taper
    return nn.Sequential(*layers), width
