"""Re-attention of DeepViT (Zhou et al. 2021, arXiv 2103.11886): attention maps mixed over heads and batch-normalized.

The maps, BatchNorm2d(Conv2d(softmax(q k^T / sqrt(d)))), are never stored, neither in evaluation nor in training with
batch statistics. The norm is linear given mean and variance of the mixed maps, which are sums over rows.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from pit_downstream.backbones.layers import Attention, softmax_map
from pit_downstream.backbones.streaming import Streaming, default_budget, mixed_attention, without_autocast


class ReAttention(Attention):
    """Multi-head self-attention with Re-attention. tokens: (B, N, D). Returns (B, N, D).

    Parameter names are those of the official code (github.com/zhoudaquan/dvit_repo): `reatten_matrix` is its
    convolution over heads and `var_norm` its batch norm, which may be in eval mode independently, or a SyncBatchNorm.
    transform_scale: also scale the maps by 1 / sqrt(head dim), as deepvit_S does.
    base_tokens: N0, the number of tokens that the norm's statistics were computed with. Softmax entries have magnitude
    1 / N, so with N0 they are scaled by N / N0 before the mixing and back after it. The result is unchanged at N0
    tokens and similar in magnitude at any other number, where the plain formula explodes.
    budget: bytes for one chunk of the maps; None uses `default_budget`.
    """

    def __init__(self, width: int, heads: int, *, attn_drop: float = 0.0, proj_drop: float = 0.0,
                 transform_scale: bool = False, base_tokens: int | None = None, budget: int | None = None):
        super().__init__(width, heads, attn_drop=attn_drop, proj_drop=proj_drop)
        self.reatten_scale = (width // heads) ** -0.5 if transform_scale else 1.0
        self.base_tokens = base_tokens
        self.budget = budget
        self.reatten_matrix = nn.Conv2d(heads, heads, 1)
        self.var_norm = nn.BatchNorm2d(heads)

    def maps(self, q: Tensor, k: Tensor) -> dict[str, Tensor]:
        """Return both types of maps: q, k (B, H, N, d) -> {'softmax', 'reattention'}: (B, H, N, N), before dropout.

        'reattention' multiplies the values. The running statistics do not change.
        """
        softmax, conv, norm = softmax_map(q, k), self.reatten_matrix, self.var_norm
        ratio = softmax.shape[-1] / self.base_tokens if self.base_tokens else 1.0
        by_batch = uses_batch_statistics(norm)
        statistics = (None, None) if by_batch else (norm.running_mean.to(softmax), norm.running_var.to(softmax))
        with without_autocast(q.device):
            mixed = F.conv2d(ratio * softmax, conv.weight.to(softmax), conv.bias.to(softmax))
            mixed = F.batch_norm(mixed, *statistics, norm.weight.to(softmax), norm.bias.to(softmax), by_batch, 0.0,
                                 norm.eps)
        return {'softmax': softmax, 'reattention': self.reatten_scale / ratio * mixed}

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Compute the output (B, H, N, d) of q, k, v (B, H, N, d) in their dtype, internally in float32 or better."""
        dtype = torch.promote_types(q.dtype, torch.float32)
        with without_autocast(q.device):
            return self._attend(q.to(dtype) * q.shape[-1] ** -0.5, k.to(dtype), v.to(dtype)).to(q.dtype)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Apply the norm after the values: it scales each head separately, once its statistics are available.

        The constants that norm and convolution add to every entry of a map add a multiple of sum_j v_j to every row.
        """
        norm, batch, count = self.var_norm, len(q), q.shape[2]
        mixing, bias = self.reatten_matrix.weight.flatten(1).to(q.dtype), self.reatten_matrix.bias.to(q.dtype)
        ratio = count / self.base_tokens if self.base_tokens else 1.0
        by_batch = uses_batch_statistics(norm)
        out, total, squares = mixed_attention(q, k, v, mixing, how=self._streaming(q.device, moments=by_batch))
        if by_batch:
            sums = MapSums(ratio * total, ratio ** 2 * squares, batch * count ** 2).over_ranks(norm)
            mean, var = sums.mean + bias, sums.var
            update_running(norm, mean.detach(), var.detach(), sums.entries)
        else:
            mean, var = norm.running_mean.to(q.dtype), norm.running_var.to(q.dtype)
        scale = norm.weight.to(q.dtype) * (var + norm.eps).rsqrt()
        shift = norm.bias.to(q.dtype) + scale * (bias - mean)
        out = scale[:, None, None] * out + (shift / ratio)[:, None, None] * v.sum(2, keepdim=True)
        return self.reatten_scale * out

    def _streaming(self, device: torch.device, moments: bool) -> Streaming:
        dropout = self.attn_drop if self.training else 0.0
        seed = int(torch.randint(2 ** 62, ())) if dropout else 0
        budget = default_budget(device) if self.budget is None else self.budget
        return Streaming(budget, moments=moments, dropout=dropout, seed=seed)


@dataclass(frozen=True)
class MapSums:
    """Sums over the entries of the mixed maps, per head: of the values (H,) and of their squares (H,)."""

    total: Tensor
    squares: Tensor
    entries: int | Tensor

    @property
    def mean(self) -> Tensor:
        return self.total / self._divisor

    @property
    def var(self) -> Tensor:
        """Biased variance, as used by batch norm."""
        return (self.squares / self._divisor - self.mean.square()).clamp_min(0)

    @property
    def _divisor(self) -> int | Tensor:
        """Number of entries, or 1 for an empty batch, whose sums are 0."""
        return self.entries.clamp_min(1) if isinstance(self.entries, Tensor) else max(self.entries, 1)

    def over_ranks(self, norm: nn.Module) -> 'MapSums':
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


def uses_batch_statistics(norm: nn.Module) -> bool:
    return norm.training or norm.running_mean is None


@torch.no_grad()
def update_running(norm: nn.Module, mean: Tensor, var: Tensor, entries: int | Tensor) -> None:
    """Update the buffers as a training step of BatchNorm2d does. An empty batch keeps their values.

    var: biased. entries: numbers per head; a Tensor is a sum over ranks, at least one of which has images.
    """
    if not (norm.training and norm.track_running_stats) or (isinstance(entries, int) and not entries):
        return
    norm.num_batches_tracked.add_(1)
    factor = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
    unbiased = var * (entries / (entries - 1))
    norm.running_mean.add_(factor * (mean.to(norm.running_mean.dtype) - norm.running_mean))
    norm.running_var.add_(factor * (unbiased.to(norm.running_var.dtype) - norm.running_var))


class FrozenBatchNormStatistics(AbstractContextManager):
    """Context manager that freezes the running statistics of the norms in `module`. Batch statistics stay in use.

    For the second forward pass of a checkpointed block, which would count every batch twice.
    """

    def __init__(self, module: nn.Module):
        self._norms = [norm for norm in module.modules() if getattr(norm, 'track_running_stats', False)]

    def __enter__(self) -> None:
        for norm in self._norms:
            norm.track_running_stats = False

    def __exit__(self, *error: object) -> None:
        for norm in self._norms:
            norm.track_running_stats = True
