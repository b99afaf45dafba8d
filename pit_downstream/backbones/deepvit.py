"""DeepViT (Zhou et al. 2021, arXiv 2103.11886) and plain ViTs: Re-attention, timm classifiers, detection backbone.

Architecture and parameter names follow the official repository, github.com/zhoudaquan/dvit_repo.

Re-attention mixes the attention maps over heads and batch-normalizes them. The maps,
BatchNorm2d(Conv2d(softmax(q k^T / sqrt(d)))), are never stored, neither in evaluation nor in training with batch
statistics: query rows are processed in chunks, forward and backward, and the backward pass recomputes the maps. The
norm is linear given mean and variance of the mixed maps, which are sums over rows.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from pit_downstream.backbones.layers import Attention, compute_softmax_map
from pit_downstream.backbones.multi_scale import EMBEDDINGS, DetectionBackbone, check_frozen_stages, check_out_indices
from pit_downstream.backbones.vit import PATCH, STRIDES, SimpleFeaturePyramid, StagePyramid, VitArch, VitTrunk
from pit_downstream.backbones.weights import DEEPVIT, fit_position_embedding, strip_prefix
from pit_downstream.utils.checkpoints import extract_parameters
from pit_downstream.utils.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

MIB = 2 ** 20

ARCHS = {  # dvit_repo, models/deep_vision_transformer.py
    '16': VitArch(384, 12, 16),
    '24': VitArch(384, 12, 24),
    '32': VitArch(384, 12, 32),
    's': VitArch(396, 12, 16, plain=11, conv_stem=True, adjust=0.5, transform_scale=True),
    'l': VitArch(420, 12, 32, plain=20, conv_stem=True, adjust=0.5),
    'l_384': VitArch(420, 12, 32, plain=20, conv_stem=True, adjust=0.5, img_size=384),
    'vit_16': VitArch(384, 12, 16, plain=16),  # the paper's table 1 without Re-attention
    'vit_24': VitArch(384, 12, 24, plain=24),
    'vit_32': VitArch(384, 12, 32, plain=32),
    'vit_s': VitArch(384, 6, 12, plain=12, mlp_ratio=4.0),  # DeiT-S, the counterpart of PiT-S in the PiT paper
}


def find_arch(name: str) -> VitArch:
    """Return the architecture called `name`. Raises InputError for an unknown one."""
    if name not in ARCHS:
        raise InputError(f'arch is one of {", ".join(ARCHS)}, got {name!r}')
    return ARCHS[name]


def get_default_budget(device: torch.device) -> int:
    """Return the bytes for the maps of one chunk: to fit a CPU's cache, or to fill a GPU. Both are far below one map.

    The CPU value is measured (speed/reattention.py). The GPU value is an estimate: tens of microseconds a kernel.
    """
    return 16 * MIB if device.type == 'cpu' else 256 * MIB


def disable_autocast(device: torch.device) -> AbstractContextManager:
    """Disable autocast. The meta device, for shapes only, does not support autocast."""
    return nullcontext() if device.type == 'meta' else torch.autocast(device.type, enabled=False)


@dataclass(frozen=True)
class Streaming:
    """Settings of the chunked computation. budget: bytes for the maps of one chunk, at least one row of one image.

    moments: also sum the mixed map's entries and their squares. dropout: probability in [0, 1) of zeroing an entry of
    the softmax. Masks are drawn from `seed` and are the same in the backward pass.
    """

    budget: int
    moments: bool = False
    dropout: float = 0.0
    seed: int = 0

    def __post_init__(self):
        if self.budget < 1:
            raise InputError(f'the budget is a positive number of bytes, got {self.budget}')
        if not 0 <= self.dropout < 1:
            raise InputError(f'dropout is a probability in [0, 1), got {self.dropout}')

    def split_chunks(self, q: Tensor, buffers: int) -> Iterator[tuple[slice, slice]]:
        """Yield slices (images, rows) of q (B, H, N, d): whole images if several fit, else some rows of one."""
        batch, heads, count, _ = q.shape
        row_bytes = buffers * heads * count * q.element_size()
        images = max(1, self.budget // (row_bytes * count))
        rows = max(1, self.budget // row_bytes)
        for image in range(0, batch, images):
            for row in range(0, count, rows):
                yield slice(image, min(image + images, batch)), slice(row, min(row + rows, count))

    def draw_mask(self, images: slice, rows: slice, like: Tensor) -> Tensor:
        """Draw the dropout factors of one chunk, 0 or 1 / (1 - dropout), in the shape of `like` (b, H, rows, N)."""
        generator = torch.Generator(like.device)
        generator.manual_seed(self.seed + images.start * like.shape[-1] + rows.start)
        keep = 1 - self.dropout
        return torch.empty_like(like).bernoulli_(keep, generator=generator).div_(keep)


class Scratch:
    """Buffers for the maps of one chunk, reused by every chunk. Allocation costs more than the arithmetic."""

    def __init__(self, like: Tensor):
        self._like = like
        self._flat: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return an uninitialized tensor. The first chunk is the largest, so later ones use part of its memory."""
        size = torch.Size(shape).numel()
        if name not in self._flat:
            self._flat[name] = self._like.new_empty(size)
        return self._flat[name][:size].view(shape)


def compute_mixed_attention(q: Tensor, k: Tensor, v: Tensor, mixing: Tensor, streaming: Streaming
                            ) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Compute out_g = S_g v_g with S_g = sum_h mixing_gh A_h and A = dropout(softmax(q k^T)), exact and differentiable.

    q, k, v: (B, H, N, d), q already scaled; mixing: (H, H); all of one dtype, float32 or float64.
    Returns out (B, H, N, d) and, if `streaming.moments`, per head the sums (H,) of S and of its squares over B, N, N.
    Memory: O(B H N d) and the budget, forward and backward.
    """
    out, total, squares = _MixedAttention.apply(q.contiguous(), k.contiguous(), v.contiguous(), mixing, streaming)
    if streaming.moments and not streaming.dropout:
        batch, _, count, _ = q.shape
        total = batch * count * mixing.sum(1)  # the rows of a softmax sum to 1
    return out, total, squares


class _MixedAttention(torch.autograd.Function):

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, mixing: Tensor, streaming: Streaming):
        ctx.save_for_backward(q, k, v, mixing)
        ctx.set_materialize_grads(False)
        ctx.streaming = streaming
        out, scratch = torch.empty_like(v), Scratch(q)
        moments: list[tuple[Tensor | None, Tensor]] = []
        with disable_autocast(q.device):
            for images, rows in streaming.split_chunks(q, buffers=4 if streaming.dropout else 2):
                attention = _compute_attention(q[images, :, rows], k[images], scratch)
                if streaming.dropout:
                    attention.mul_(streaming.draw_mask(images, rows, attention))
                mixed = _mix(mixing, attention, scratch.take('mixed', attention.shape))
                torch.bmm(mixed.flatten(0, 1), v[images].flatten(0, 1), out=out[images, :, rows].flatten(0, 1))
                if streaming.moments:
                    moments.append((mixed.sum((0, 2, 3)) if streaming.dropout else None, _sum_squares(mixed)))
        if streaming.moments and not moments:  # no images
            moments = [(q.new_zeros(q.shape[1]),) * 2]
        totals = [total for total, _ in moments if total is not None]
        total = torch.stack(totals).sum(0) if streaming.moments and streaming.dropout else None
        squares = torch.stack([squares for _, squares in moments]).sum(0) if streaming.moments else None
        return out, total, squares

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out: Tensor | None, grad_total: Tensor | None, grad_squares: Tensor | None):
        q, k, v, mixing = ctx.saved_tensors
        streaming = ctx.streaming
        grad_out = torch.zeros_like(v) if grad_out is None else grad_out.contiguous()
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        grad_mixing, scratch = torch.zeros_like(mixing), Scratch(q)
        with disable_autocast(q.device):
            for images, rows in streaming.split_chunks(q, buffers=5 if streaming.dropout else 3):
                kept = attention = _compute_attention(q[images, :, rows], k[images], scratch)
                if streaming.dropout:
                    mask = streaming.draw_mask(images, rows, attention)
                    kept = torch.mul(attention, mask, out=scratch.take('kept', attention.shape))
                mixed = _mix(mixing, kept, scratch.take('mixed', attention.shape))
                out_rows = grad_out[images, :, rows].flatten(0, 1)
                grad_v[images].flatten(0, 1).baddbmm_(mixed.flatten(0, 1).mT, out_rows)
                grad_mixed = _compute_grad_mixed(mixed, out_rows, v[images], grad_total, grad_squares)
                grad_mixing += torch.bmm(grad_mixed.flatten(2), kept.flatten(2).mT).sum(0)
                grad_kept = _mix(mixing.T, grad_mixed, scratch.take('grad', attention.shape))
                if streaming.dropout:
                    grad_kept.mul_(mask)
                grad_scores = torch.ops.aten._softmax_backward_data.out(
                    grad_kept, attention, -1, attention.dtype, grad_input=grad_mixed).flatten(0, 1)
                torch.bmm(grad_scores, k[images].flatten(0, 1), out=grad_q[images, :, rows].flatten(0, 1))
                grad_k[images].flatten(0, 1).baddbmm_(grad_scores.mT, q[images, :, rows].flatten(0, 1))
        return grad_q, grad_k, grad_v, grad_mixing, None


def _compute_attention(q: Tensor, k: Tensor, scratch: Scratch) -> Tensor:
    """Compute softmax(q k^T), (b, H, rows, N), in scratch memory. Overwrites the 'mixed' buffer."""
    shape = (*q.shape[:3], k.shape[2])
    scores = scratch.take('mixed', shape)
    torch.bmm(q.flatten(0, 1), k.flatten(0, 1).mT, out=scores.flatten(0, 1))
    return torch.softmax(scores, -1, out=scratch.take('attention', shape))


def _mix(mixing: Tensor, maps: Tensor, out: Tensor) -> Tensor:
    """Compute sum_h mixing_gh maps_h for maps (b, H, rows, N) into `out`."""
    torch.bmm(mixing.expand(len(maps), -1, -1), maps.flatten(2), out=out.flatten(2))
    return out


def _sum_squares(maps: Tensor) -> Tensor:
    """Sum the squares per head (H,), row by row first for a float32 error of 1e-7."""
    return torch.linalg.vector_norm(maps, dim=-1).square().sum((0, 2))


def _compute_grad_mixed(mixed: Tensor, grad_out: Tensor, v: Tensor, grad_total: Tensor | None,
                        grad_squares: Tensor | None) -> Tensor:
    """Compute the gradient of the mixed map (b, H, rows, N) in place, through the output and both moments."""
    if grad_squares is not None:
        mixed.mul_(2 * grad_squares[:, None, None])
    mixed.flatten(0, 1).baddbmm_(grad_out, v.flatten(0, 1).mT, beta=0 if grad_squares is None else 1)
    if grad_total is not None:
        mixed.add_(grad_total[:, None, None])
    return mixed


class ReAttention(Attention):
    """Multi-head self-attention with Re-attention. tokens: (B, N, D). Returns (B, N, D).

    Parameter names are those of the official code (github.com/zhoudaquan/dvit_repo): `reatten_matrix` is its
    convolution over heads and `var_norm` its batch norm, which may be in eval mode independently, or a SyncBatchNorm.
    transform_scale: also scale the maps by 1 / sqrt(head dim), as deepvit_S does.
    base_tokens: N0, the number of tokens that the norm's statistics were computed with. Softmax entries have magnitude
    1 / N, so with N0 they are scaled by N / N0 before the mixing and back after it. The result is unchanged at N0
    tokens and similar in magnitude at any other number, where the plain formula explodes.
    budget: bytes for one chunk of the maps; None uses `get_default_budget`.
    """

    def __init__(self, width: int, heads: int, *, attn_drop: float = 0.0, proj_drop: float = 0.0,
                 transform_scale: bool = False, base_tokens: int | None = None, budget: int | None = None):
        super().__init__(width, heads, attn_drop=attn_drop, proj_drop=proj_drop)
        self.reatten_scale = (width // heads) ** -0.5 if transform_scale else 1.0
        self.base_tokens = base_tokens
        self.budget = budget
        self.reatten_matrix = nn.Conv2d(heads, heads, 1)
        self.var_norm: _BatchNorm = nn.BatchNorm2d(heads)

    def compute_maps(self, q: Tensor, k: Tensor) -> dict[str, Tensor]:
        """Return both types of maps: q, k (B, H, N, d) -> {'softmax', 'reattention'}: (B, H, N, N), before dropout.

        'reattention' multiplies the values. The running statistics do not change.
        """
        softmax, conv, norm = compute_softmax_map(q, k), self.reatten_matrix, self.var_norm
        ratio = softmax.shape[-1] / self.base_tokens if self.base_tokens else 1.0
        by_batch = uses_batch_statistics(norm)
        mean, var = (None, None) if by_batch else get_running_statistics(norm, softmax.dtype)
        assert conv.bias is not None
        with disable_autocast(q.device):
            mixed = F.conv2d(ratio * softmax, conv.weight.to(softmax), conv.bias.to(softmax))
            mixed = F.batch_norm(mixed, mean, var, norm.weight.to(softmax), norm.bias.to(softmax), by_batch, 0.0,
                                 norm.eps)
        return {'softmax': softmax, 'reattention': self.reatten_scale / ratio * mixed}

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Compute the output (B, H, N, d) of q, k, v (B, H, N, d) in their dtype, internally in float32 or better.

        The norm is applied after the values: it scales each head separately, once its statistics are available. The
        constants that norm and convolution add to every entry of a map add a multiple of sum_j v_j to every row.
        """
        out_dtype, dtype = q.dtype, torch.promote_types(q.dtype, torch.float32)
        conv, norm, batch, count = self.reatten_matrix, self.var_norm, len(q), q.shape[2]
        assert conv.bias is not None
        by_batch, dropout = uses_batch_statistics(norm), self.attn_drop if self.training else 0.0
        streaming = Streaming(get_default_budget(q.device) if self.budget is None else self.budget, moments=by_batch,
                              dropout=dropout, seed=int(torch.randint(2 ** 62, ())) if dropout else 0)
        with disable_autocast(q.device):
            q, k, v = q.to(dtype) * q.shape[-1] ** -0.5, k.to(dtype), v.to(dtype)
            mixing, bias = conv.weight.flatten(1).to(dtype), conv.bias.to(dtype)
            ratio = count / self.base_tokens if self.base_tokens else 1.0
            out, total, squares = compute_mixed_attention(q, k, v, mixing, streaming)
            if by_batch:
                assert total is not None and squares is not None  # streaming.moments is set
                sums = MapSums(ratio * total, ratio ** 2 * squares, batch * count ** 2).sum_over_ranks(norm)
                mean, var = sums.compute_moments()
                mean = mean + bias
                update_running_statistics(norm, mean.detach(), var.detach(), sums.entries)
            else:
                mean, var = get_running_statistics(norm, dtype)
            scale = norm.weight.to(dtype) * (var + norm.eps).rsqrt()
            shift = norm.bias.to(dtype) + scale * (bias - mean)
            out = scale[:, None, None] * out + (shift / ratio)[:, None, None] * v.sum(2, keepdim=True)
            return (self.reatten_scale * out).to(out_dtype)


@dataclass(frozen=True)
class MapSums:
    """Sums over the entries of the mixed maps, per head: of the values (H,) and of their squares (H,)."""

    total: Tensor
    squares: Tensor
    entries: int | Tensor

    def compute_moments(self) -> tuple[Tensor, Tensor]:
        """Return the mean (H,) and the biased variance (H,), as used by batch norm. Both are 0 for an empty batch."""
        divisor = self.entries.clamp_min(1) if isinstance(self.entries, Tensor) else max(self.entries, 1)
        mean = self.total / divisor
        return mean, (self.squares / divisor - mean.square()).clamp_min(0)

    def sum_over_ranks(self, norm: _BatchNorm) -> 'MapSums':
        """Sum over all ranks, including gradients, if `norm` is a SyncBatchNorm and there are several ranks."""
        if not isinstance(norm, nn.SyncBatchNorm) or not (dist.is_available() and dist.is_initialized()):
            return self
        group = norm.process_group or dist.group.WORLD
        if dist.get_world_size(group) == 1:
            return self
        heads = len(self.total)
        sums = torch.cat((self.total, self.squares, self.total.new_tensor([self.entries])))
        total, squares, entries = _SumOverRanks.apply(sums, group).split((heads, heads, 1))
        return MapSums(total, squares, entries[0])


class _SumOverRanks(torch.autograd.Function):
    """All-reduce that also all-reduces gradients, because every rank's loss depends on this rank's sums."""

    @staticmethod
    def forward(ctx, numbers: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        numbers = numbers.clone()
        dist.all_reduce(numbers, group=group)
        return numbers

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return _SumOverRanks.apply(grad, ctx.group), None


def uses_batch_statistics(norm: _BatchNorm) -> bool:
    return norm.training or norm.running_mean is None


def get_running_statistics(norm: _BatchNorm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the running mean (H,) and variance (H,) in `dtype`, for a norm that has them."""
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean.to(dtype), norm.running_var.to(dtype)


@torch.no_grad()
def update_running_statistics(norm: _BatchNorm, mean: Tensor, var: Tensor, entries: int | Tensor) -> None:
    """Update the buffers as a training step of BatchNorm2d does. An empty batch keeps their values.

    var: biased. entries: numbers per head; a Tensor is a sum over ranks, at least one of which has images.
    """
    if not (norm.training and norm.track_running_stats) or (isinstance(entries, int) and not entries):
        return
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    factor = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
    unbiased = var * (entries / (entries - 1))
    norm.running_mean.add_(factor * (mean.to(norm.running_mean.dtype) - norm.running_mean))
    norm.running_var.add_(factor * (unbiased.to(norm.running_var.dtype) - norm.running_var))


class DeepVitTrunk(VitTrunk):
    """Trunk of DeepViT: the first `plain` blocks use standard attention, the others Re-attention.

    consistent: scale the maps of Re-attention by the number of tokens, so that features keep their magnitude at every
    resolution (see ReAttention). At `img_size` this has no effect. budget: bytes for one chunk of the maps (see
    `get_default_budget`). Other arguments are those of VitTrunk.
    """

    def __init__(self, arch: str, *, consistent: bool = False, budget: int | None = None,
                 img_size: int | None = None, **kwargs):
        settings = find_arch(arch)
        side = -(-(img_size or settings.img_size) // PATCH)
        super().__init__(settings, img_size=img_size, attention=partial(
            ReAttention, transform_scale=settings.transform_scale, budget=budget,
            base_tokens=side ** 2 + 1 if consistent else None), **kwargs)


class DeepViT(DetectionBackbone, DeepVitTrunk):
    """DeepViT as a detection backbone: images (B, 3, H, W), normalized -> tuple of (B, C_i, h_i, w_i).

    arch: '16', '24', '32', 's', 'l', 'l_384', or the plain 'vit_16', 'vit_24', 'vit_32', 'vit_s'.
    pyramid: construction of several strides from stride 16. 'stages' resamples the maps of several blocks, one per
    stride, and keeps their width. 'simple' builds all from one map, `pyramid_channels` wide (see vit.py).
    out_indices: blocks whose tokens are used, from 0. Later blocks are not built. The default is the last block for
    'simple', and evenly spaced blocks up to the last for 'stages'.
    out_channels, out_strides: of the returned maps. Strides are some of 4, 8, 16, 32. The side of a map is
    ceil(side / 16) times 16 / stride, rounded up.
    out_norm: a LayerNorm `norm{i}` after each block used.
    frozen_stages: -1 freezes nothing; k >= 0 freezes the stem, the embeddings and the first k blocks.
    norm_eval: batch norms of Re-attention and stem use their running statistics in training.
    consistent: keep the magnitude of features at every resolution (see ReAttention); False is the paper's formula.
    Other arguments are those of DeepVitTrunk. Loading converts any checkpoint of these sizes (DeepViT, ViT, DeiT; see
    weights.py), logs a report, and raises InputError on a mismatch.
    """

    family = DEEPVIT
    added = ('norm', 'pyramid')

    def __init__(self, arch: str = 's', *, pyramid: str = 'stages', out_indices: Sequence[int] | None = None,
                 out_strides: Sequence[int] = (4, 8, 16, 32), pyramid_channels: int = 256, frozen_stages: int = -1,
                 out_norm: bool = True, norm_eval: bool = False, consistent: bool = True, **kwargs):
        width, depth = find_arch(arch).width, find_arch(arch).depth
        out_strides = tuple(out_strides)
        maps = 1 if pyramid == 'simple' else len(out_strides)
        if out_indices is None:
            out_indices = [depth * (i + 1) // maps - 1 for i in range(maps)]
        out_indices = tuple(out_indices)
        if pyramid not in ('stages', 'simple'):
            raise InputError(f"pyramid is 'stages' or 'simple', got {pyramid!r}")
        if not out_strides or list(out_strides) != sorted(set(out_strides) & set(STRIDES)):
            raise InputError(f'out_strides are some of {STRIDES} in rising order, got {out_strides}')
        if len(out_indices) != maps:
            raise InputError(f'pyramid {pyramid!r} with {len(out_strides)} out_strides takes {maps} out_indices, '
                             f'got {out_indices}')
        check_out_indices(out_indices, depth)
        check_frozen_stages(frozen_stages, depth)
        super().__init__(arch, depth=out_indices[-1] + 1, consistent=consistent, **kwargs)
        self.out_indices, self.out_strides, self.norm_eval = out_indices, out_strides, norm_eval
        for i in out_indices:
            self.add_module(f'norm{i}', nn.LayerNorm(width, eps=1e-6) if out_norm else nn.Identity())
        self.pyramid = (SimpleFeaturePyramid(width, out_strides, out_channels=pyramid_channels) if pyramid == 'simple'
                        else StagePyramid(width, out_strides))
        self.out_channels = self.pyramid.out_channels
        self._init_freezing(frozen_stages)

    def compute_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs, size = self.run_blocks(images, keep=self.out_indices)
        maps = self.pyramid([
            getattr(self, f'norm{i}')(tokens[:, 1:]).transpose(1, 2).unflatten(2, size).contiguous()
            for i, tokens in zip(self.out_indices, outputs)])
        return tuple(grid.contiguous() for grid in maps)  # norms and convolutions may return channels_last

    def train(self, mode: bool = True) -> 'Self':
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _get_frozen(self) -> Iterator[nn.Module | nn.Parameter]:
        yield from (self.pos_embed, self.cls_token, self.patch_embed, self.pos_drop)
        yield from self.blocks[:self.frozen_stages]

    def _get_layers(self) -> list[tuple[str, ...]]:
        return [EMBEDDINGS, *((f'blocks.{i}',) for i in range(len(self.blocks)))]


class DeepVitClassifier(DeepVitTrunk):
    """DeepViT as an ImageNet classifier: images (B, 3, H, W) of any size, normalized -> logits (B, num_classes)."""

    def __init__(self, arch: str, *, num_classes: int = 1000, global_pool: str = 'token', **kwargs):
        super().__init__(arch, **kwargs)
        if global_pool != 'token':
            raise InputError(f"DeepViT pools by its class token: global_pool is 'token', got {global_pool!r}")
        self.num_features = self.head_hidden_size = self.arch.width
        self.norm = nn.LayerNorm(self.num_features, eps=1e-6)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by one for `num_classes` classes, or by none for 0. `global_pool`: for timm, unused."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        if isinstance(self.head, nn.Linear):
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)

    def get_classifier(self) -> nn.Module:
        return self.head

    def no_weight_decay(self) -> set[str]:
        return {'pos_embed', 'cls_token'}

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the normalized tokens (B, 1 + h w, D), class token first. images: (B, 3, H, W)."""
        return self.norm(self.run_blocks(images, keep=(len(self.blocks) - 1,))[0][0])

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits (B, num_classes), or features (B, D) when `pre_logits`. tokens: (B, N, D)."""
        return tokens[:, 0] if pre_logits else self.head(tokens[:, 0])

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def _make_cfg(arch: str) -> dict:
    """Return timm's pretrained config. DeepViT paper's models normalize to [-1, 1], DeiT-S by ImageNet statistics."""
    side = ARCHS[arch].img_size
    cfg = {'num_classes': 1000, 'input_size': (3, side, side), 'pool_size': None, 'crop_pct': 0.9,
           'interpolation': 'bicubic', 'mean': IMAGENET_INCEPTION_MEAN, 'std': IMAGENET_INCEPTION_STD,
           'first_conv': 'patch_embed.conv1' if ARCHS[arch].conv_stem else 'patch_embed.proj', 'classifier': 'head'}
    if arch == 'vit_s':
        cfg |= {'mean': IMAGENET_DEFAULT_MEAN, 'std': IMAGENET_DEFAULT_STD, 'license': 'apache-2.0',
                'hf_hub_id': 'timm/deit_small_patch16_224.fb_in1k'}
    return cfg


_ARCH_OF = {  # every registered name
    'deepvit_patch16_224_re_attn_16b': '16', 'deepvit_patch16_224_re_attn_24b': '24',
    'deepvit_patch16_224_re_attn_32b': '32', 'deepvit_S': 's', 'deepvit_L': 'l', 'deepvit_L_384': 'l_384',
    **{f'deepvit_{arch}': arch for arch in ('16', '24', '32', 's', 'l', 'l_384')},
    **{arch: arch for arch in ('vit_16', 'vit_24', 'vit_32', 'vit_s')}}

default_cfgs = generate_default_cfgs({name: _make_cfg(arch) for name, arch in _ARCH_OF.items()})


def _convert_checkpoint(checkpoint: dict, model: DeepVitClassifier) -> dict[str, Tensor]:
    return fit_position_embedding(strip_prefix(extract_parameters(checkpoint), 'patch_embed.proj.weight'),
                                  model.pos_embed)


def _register(name: str) -> Callable[..., DeepVitClassifier]:
    """Return the timm entry point of one model."""
    def create(pretrained: bool = False, **kwargs) -> DeepVitClassifier:
        return build_model_with_cfg(DeepVitClassifier, name, pretrained, arch=_ARCH_OF[name],
                                    pretrained_filter_fn=_convert_checkpoint, **kwargs)
    create.__name__ = create.__qualname__ = name
    return register_model(create)


deepvit_patch16_224_re_attn_16b = _register('deepvit_patch16_224_re_attn_16b')
deepvit_patch16_224_re_attn_24b = _register('deepvit_patch16_224_re_attn_24b')
deepvit_patch16_224_re_attn_32b = _register('deepvit_patch16_224_re_attn_32b')
deepvit_S = _register('deepvit_S')
deepvit_L = _register('deepvit_L')
deepvit_L_384 = _register('deepvit_L_384')
deepvit_16 = _register('deepvit_16')
deepvit_24 = _register('deepvit_24')
deepvit_32 = _register('deepvit_32')
deepvit_s = _register('deepvit_s')
deepvit_l = _register('deepvit_l')
deepvit_l_384 = _register('deepvit_l_384')
vit_16 = _register('vit_16')
vit_24 = _register('vit_24')
vit_32 = _register('vit_32')
vit_s = _register('vit_s')
