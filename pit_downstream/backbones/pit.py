"""PiT, the Pooling-based Vision Transformer (Heo et al. 2021, arXiv 2103.16302): detection backbone and classifiers.

Architecture and parameter names follow the official repository, github.com/naver-ai/pit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pit_downstream.backbones.layers import Block, GridCache, clear_grids
from pit_downstream.backbones.multi_scale import EMBEDDINGS, DetectionBackbone, check_frozen_stages, check_out_indices
from pit_downstream.backbones.weights import PIT, fit_position_embedding, rename_timm_pools, strip_prefix
from pit_downstream.utils.checkpoints import extract_parameters
from pit_downstream.utils.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

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
        first, second, third = (self.head_dim * heads for heads in self.heads)
        return first, second, third

    @property
    def strides(self) -> tuple[int, int, int]:
        return self.stride, 2 * self.stride, 4 * self.stride

    def get_drop_path_rates(self, rate: float) -> list[list[float]]:
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
            images = F.pad(images, self._compute_margins(images.shape[-1]) + self._compute_margins(images.shape[-2]))
        return self.conv(images)

    def _compute_margins(self, side: int) -> tuple[int, int]:
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


class PitTrunk(nn.Module):
    """Parts shared by classifier and backbone: stem, position embedding, class tokens, stages and pools."""

    def __init__(self, arch: str, stages: int, *, distilled: bool = False, img_size: int = 224, in_chans: int = 3,
                 stem_padding: StemPadding = 'valid', drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0, with_cp: bool = False):
        super().__init__()
        if arch not in ARCHS:
            raise InputError(f'arch is one of {", ".join(ARCHS)}, got {arch!r}')
        if stem_padding not in ('valid', 'same'):
            raise InputError(f"stem_padding is 'valid' or 'same', got {stem_padding!r}")
        self.arch = ARCHS[arch]
        widths = self.arch.widths
        side = (img_size - self.arch.patch_size) // self.arch.stride + 1
        self.pos_embed = nn.Parameter(torch.empty(1, widths[0], side, side))
        self.cls_token = nn.Parameter(torch.empty(1, 2 if distilled else 1, widths[0]))
        self.patch_embed = PatchEmbed(in_chans, widths[0], self.arch, padding=stem_padding)
        self.pos_drop = nn.Dropout(drop_rate)
        rates = self.arch.get_drop_path_rates(drop_path_rate)
        self.transformers = nn.ModuleList(
            Stage(widths[i], self.arch.heads[i], rates[i], with_cp=with_cp, drop=drop_rate, attn_drop=attn_drop_rate)
            for i in range(stages))
        self.pools = nn.ModuleList(Pool(widths[i], widths[i + 1]) for i in range(stages - 1))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self._grids = GridCache()
        self.register_load_state_dict_post_hook(clear_grids)

    def train(self, mode: bool = True) -> 'Self':
        self._grids.clear()
        return super().train(mode)

    def run_stages(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return per stage the grid (B, C, h, w) and class tokens (B, T, C). images: (B, 3, H, W), normalized."""
        smallest = self.arch.patch_size
        if self.patch_embed.padding == 'valid' and any(side < smallest for side in images.shape[-2:]):
            raise InputError(f'expected images of at least {smallest}x{smallest} pixels, got '
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
    Loading converts any PiT checkpoint (see weights.py), logs a report, and raises InputError on a mismatch.
    """

    family = PIT

    def __init__(self, arch: str = 's', *, out_indices: Sequence[int] = (0, 1, 2), frozen_stages: int = -1,
                 out_norm: bool = True, **kwargs):
        out_indices = tuple(out_indices)
        check_out_indices(out_indices, 3)
        check_frozen_stages(frozen_stages, 3)
        super().__init__(arch, out_indices[-1] + 1, **kwargs)
        self.out_indices = out_indices
        self.out_channels = tuple(self.arch.widths[i] for i in out_indices)
        self.out_strides = tuple(self.arch.strides[i] for i in out_indices)
        for i in out_indices:
            self.add_module(f'norm{i}', nn.LayerNorm(self.arch.widths[i], eps=1e-6) if out_norm else nn.Identity())
        self._init_freezing(frozen_stages)

    def compute_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        stages = self.run_stages(images)
        return tuple(self._normalize(i, stages[i][0]) for i in self.out_indices)

    def _normalize(self, level: int, grid: Tensor) -> Tensor:
        norm = getattr(self, f'norm{level}')
        if isinstance(norm, nn.Identity):
            return grid
        return norm(grid.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()

    def _get_frozen(self) -> Iterator[nn.Module | nn.Parameter]:
        yield from (self.pos_embed, self.cls_token, self.patch_embed, self.pos_drop)
        yield from self.transformers[:self.frozen_stages]
        yield from self.pools[:max(self.frozen_stages - 1, 0)]

    def _get_layers(self) -> list[tuple[str, ...]]:
        """Return the names of the parts of each layer. A pool belongs to the block after it."""
        layers: list[tuple[str, ...]] = [EMBEDDINGS]
        for i, depth in enumerate(self.arch.depths[:len(self.transformers)]):
            layers += [(f'transformers.{i}.blocks.{j}',) for j in range(depth)]
            if i:
                layers[-depth] += (f'pools.{i - 1}',)
        return layers


class PitClassifier(PitTrunk):
    """PiT as an ImageNet classifier: images (B, 3, H, W), normalized -> logits (B, num_classes).

    The distilled models return the pair (class logits, distillation logits) in training and their mean in evaluation.
    Any size from 32 pixels is supported, while timm's PiT supports only 224.
    """

    def __init__(self, arch: str, *, num_classes: int = 1000, distilled: bool = False, global_pool: str = 'token',
                 **kwargs):
        super().__init__(arch, 3, distilled=distilled, **kwargs)
        if global_pool != 'token':
            raise InputError(f"PiT pools by its class token: global_pool is 'token', got {global_pool!r}")
        self.num_features = self.head_hidden_size = self.arch.widths[-1]
        self.distilled = distilled
        self.norm = nn.LayerNorm(self.num_features, eps=1e-6)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by one for `num_classes` classes, or by none for 0. `global_pool`: for timm, unused."""
        self.num_classes = num_classes
        self.head = self._make_head()
        if self.distilled:
            self.head_dist = self._make_head()

    def get_classifier(self) -> nn.Module | tuple[nn.Module, nn.Module]:
        return (self.head, self.head_dist) if self.distilled else self.head

    def no_weight_decay(self) -> set[str]:
        return {'pos_embed', 'cls_token'}

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the normalized class tokens (B, 1 or 2, D). images: (B, 3, H, W)."""
        return self.norm(self.run_stages(images)[-1][1])

    def forward_head(self, cls: Tensor, pre_logits: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits (B, num_classes), or features (B, D) when `pre_logits`. cls: (B, 1 or 2, D)."""
        if pre_logits:
            return cls.mean(1)
        if not self.distilled:
            return self.head(cls[:, 0])
        logits = self.head(cls[:, 0]), self.head_dist(cls[:, 1])
        return logits if self.training else (logits[0] + logits[1]) / 2

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return self.forward_head(self.forward_features(images))

    def _make_head(self) -> nn.Module:
        return nn.Linear(self.num_features, self.num_classes) if self.num_classes else nn.Identity()


def _make_cfg(timm_name: str) -> dict:
    """Return timm's pretrained config. The weights published by timm are the official ones."""
    return {'hf_hub_id': f'timm/{timm_name}', 'num_classes': 1000, 'input_size': (3, 224, 224), 'pool_size': None,
            'crop_pct': 0.9, 'interpolation': 'bicubic', 'mean': IMAGENET_DEFAULT_MEAN, 'std': IMAGENET_DEFAULT_STD,
            'first_conv': 'patch_embed.conv', 'license': 'apache-2.0'}


def _make_cfgs(arch: str) -> dict[str, dict]:
    heads = ('head', 'head_dist')
    return {f'pit_{arch}.in1k': {**_make_cfg(f'pit_{arch}_224.in1k'), 'classifier': 'head'},
            f'pit_{arch}_distilled.in1k': {**_make_cfg(f'pit_{arch}_distilled_224.in1k'), 'classifier': heads}}


default_cfgs = generate_default_cfgs({
    name: cfg for arch in ('ti', 'xs', 's', 'b') for name, cfg in _make_cfgs(arch).items()})


def _convert_checkpoint(checkpoint: dict, model: PitClassifier) -> dict[str, Tensor]:
    state = rename_timm_pools(strip_prefix(extract_parameters(checkpoint), 'patch_embed.conv.weight'))
    return fit_position_embedding(state, model.pos_embed)


def _create(arch: str, pretrained: bool, **kwargs) -> PitClassifier:
    variant = f'pit_{arch}_distilled' if kwargs.get('distilled') else f'pit_{arch}'
    return build_model_with_cfg(PitClassifier, variant, pretrained, arch=arch,
                                pretrained_filter_fn=_convert_checkpoint, **kwargs)


@register_model
def pit_ti(pretrained: bool = False, **kwargs) -> PitClassifier:
    return _create('ti', pretrained, **kwargs)


@register_model
def pit_xs(pretrained: bool = False, **kwargs) -> PitClassifier:
    return _create('xs', pretrained, **kwargs)


@register_model
def pit_s(pretrained: bool = False, **kwargs) -> PitClassifier:
    return _create('s', pretrained, **kwargs)


@register_model
def pit_b(pretrained: bool = False, **kwargs) -> PitClassifier:
    return _create('b', pretrained, **kwargs)


@register_model
def pit_ti_distilled(pretrained: bool = False, **kwargs) -> PitClassifier:
    return _create('ti', pretrained, distilled=True, **kwargs)


@register_model
def pit_xs_distilled(pretrained: bool = False, **kwargs) -> PitClassifier:
    return _create('xs', pretrained, distilled=True, **kwargs)


@register_model
def pit_s_distilled(pretrained: bool = False, **kwargs) -> PitClassifier:
    return _create('s', pretrained, distilled=True, **kwargs)


@register_model
def pit_b_distilled(pretrained: bool = False, **kwargs) -> PitClassifier:
    return _create('b', pretrained, distilled=True, **kwargs)
