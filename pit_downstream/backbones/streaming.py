"""Softmax attention with heads mixed linearly before the values, without storing the N x N maps.

Query rows are processed in chunks, forward and backward. The backward pass recomputes the maps.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

MIB = 2 ** 20


def default_budget(device: torch.device) -> int:
    """Return the bytes for the maps of one chunk: to fit a CPU's cache, or to fill a GPU. Both are far below one map.

    The CPU value is measured (speed/reattention.py). The GPU value is an estimate: tens of microseconds a kernel.
    """
    return 16 * MIB if device.type == 'cpu' else 256 * MIB


def without_autocast(device: torch.device) -> AbstractContextManager:
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
            raise ValueError(f'the budget is a positive number of bytes, got {self.budget}')
        if not 0 <= self.dropout < 1:
            raise ValueError(f'dropout is a probability in [0, 1), got {self.dropout}')

    def chunks(self, q: Tensor, buffers: int) -> Iterator[tuple[slice, slice]]:
        """Yield slices (images, rows) of q (B, H, N, d): whole images if several fit, else some rows of one."""
        batch, heads, count, _ = q.shape
        row_bytes = buffers * heads * count * q.element_size()
        images = max(1, self.budget // (row_bytes * count))
        rows = max(1, self.budget // row_bytes)
        for image in range(0, batch, images):
            for row in range(0, count, rows):
                yield slice(image, min(image + images, batch)), slice(row, min(row + rows, count))

    def mask(self, images: slice, rows: slice, like: Tensor) -> Tensor:
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


def mixed_attention(q: Tensor, k: Tensor, v: Tensor, mixing: Tensor, *, how: Streaming
                    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Compute out_g = S_g v_g with S_g = sum_h mixing_gh A_h and A = dropout(softmax(q k^T)), exact and differentiable.

    q, k, v: (B, H, N, d), q already scaled; mixing: (H, H); all of one dtype, float32 or float64.
    Returns out (B, H, N, d) and, if `how.moments`, per head the sums (H,) of S and of its squares over B, N and N.
    Memory: O(B H N d) and the budget, forward and backward.
    """
    out, total, squares = _MixedAttention.apply(q.contiguous(), k.contiguous(), v.contiguous(), mixing, how)
    if how.moments and not how.dropout:
        batch, _, count, _ = q.shape
        total = batch * count * mixing.sum(1)  # the rows of a softmax sum to 1
    return out, total, squares


class _MixedAttention(torch.autograd.Function):

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, mixing: Tensor, how: Streaming):
        ctx.save_for_backward(q, k, v, mixing)
        ctx.set_materialize_grads(False)
        ctx.how = how
        out, scratch, moments = torch.empty_like(v), Scratch(q), []
        with without_autocast(q.device):
            for images, rows in how.chunks(q, buffers=4 if how.dropout else 2):
                attention = _attention(q[images, :, rows], k[images], scratch)
                if how.dropout:
                    attention.mul_(how.mask(images, rows, attention))
                mixed = _mix(mixing, attention, scratch.take('mixed', attention.shape))
                torch.bmm(mixed.flatten(0, 1), v[images].flatten(0, 1), out=out[images, :, rows].flatten(0, 1))
                if how.moments:
                    moments.append((mixed.sum((0, 2, 3)) if how.dropout else None, _squares(mixed)))
        if how.moments and not moments:  # no images
            moments = [(q.new_zeros(q.shape[1]),) * 2]
        total = torch.stack([one[0] for one in moments]).sum(0) if how.moments and how.dropout else None
        squares = torch.stack([one[1] for one in moments]).sum(0) if how.moments else None
        return out, total, squares

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out: Tensor | None, grad_total: Tensor | None, grad_squares: Tensor | None):
        q, k, v, mixing = ctx.saved_tensors
        how = ctx.how
        grad_out = torch.zeros_like(v) if grad_out is None else grad_out.contiguous()
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        grad_mixing, scratch = torch.zeros_like(mixing), Scratch(q)
        with without_autocast(q.device):
            for images, rows in how.chunks(q, buffers=5 if how.dropout else 3):
                kept = attention = _attention(q[images, :, rows], k[images], scratch)
                if how.dropout:
                    mask = how.mask(images, rows, attention)
                    kept = torch.mul(attention, mask, out=scratch.take('kept', attention.shape))
                mixed = _mix(mixing, kept, scratch.take('mixed', attention.shape))
                out_rows = grad_out[images, :, rows].flatten(0, 1)
                grad_v[images].flatten(0, 1).baddbmm_(mixed.flatten(0, 1).mT, out_rows)
                grad_mixed = _grad_mixed(mixed, out_rows, v[images], grad_total, grad_squares)
                grad_mixing += torch.bmm(grad_mixed.flatten(2), kept.flatten(2).mT).sum(0)
                grad_kept = _mix(mixing.T, grad_mixed, scratch.take('grad', attention.shape))
                if how.dropout:
                    grad_kept.mul_(mask)
                grad_scores = torch.ops.aten._softmax_backward_data.out(
                    grad_kept, attention, -1, attention.dtype, grad_input=grad_mixed).flatten(0, 1)
                torch.bmm(grad_scores, k[images].flatten(0, 1), out=grad_q[images, :, rows].flatten(0, 1))
                grad_k[images].flatten(0, 1).baddbmm_(grad_scores.mT, q[images, :, rows].flatten(0, 1))
        return grad_q, grad_k, grad_v, grad_mixing, None


def _attention(q: Tensor, k: Tensor, scratch: Scratch) -> Tensor:
    """Compute softmax(q k^T), (b, H, rows, N), in scratch memory. Overwrites the 'mixed' buffer."""
    shape = (*q.shape[:3], k.shape[2])
    scores = scratch.take('mixed', shape)
    torch.bmm(q.flatten(0, 1), k.flatten(0, 1).mT, out=scores.flatten(0, 1))
    return torch.softmax(scores, -1, out=scratch.take('attention', shape))


def _mix(mixing: Tensor, maps: Tensor, out: Tensor) -> Tensor:
    """Compute sum_h mixing_gh maps_h for maps (b, H, rows, N) into `out`."""
    torch.bmm(mixing.expand(len(maps), -1, -1), maps.flatten(2), out=out.flatten(2))
    return out


def _squares(maps: Tensor) -> Tensor:
    """Sum the squares per head (H,), row by row first for a float32 error of 1e-7."""
    return torch.linalg.vector_norm(maps, dim=-1).square().sum((0, 2))


def _grad_mixed(mixed: Tensor, grad_out: Tensor, v: Tensor, grad_total: Tensor | None, grad_squares: Tensor | None
                ) -> Tensor:
    """Compute the gradient of the mixed map (b, H, rows, N) in place, through the output and both moments."""
    if grad_squares is not None:
        mixed.mul_(2 * grad_squares[:, None, None])
    mixed.flatten(0, 1).baddbmm_(grad_out, v.flatten(0, 1).mT, beta=0 if grad_squares is None else 1)
    if grad_total is not None:
        mixed.add_(grad_total[:, None, None])
    return mixed
