"""Measures of attention collapse (Zhou et al. 2021, DeepViT, arXiv 2103.11886): pure functions, one number per image.

Maps are (B, heads, N, N) with rows as queries. Column t is the contribution of token t to each of the N outputs.
All values are computed in float32 or float64. The cosine with a zero vector is 0.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pit_downstream.utils.errors import InputError


def compute_column_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Compute the cosine between the columns of two blocks' maps per head and token: M_ht = cos(A_h:t, A'_h:t).

    first, second: (B, heads, N, N). Returns (B, heads, N) in [-1, 1].
    Source: Zhou et al. 2021, equation of the cross-layer similarity.
    """
    _require_same_shapes((first, second))
    return (_normalize(first, dim=-2) * _normalize(second, dim=-2)).sum(-2)


def compute_similarity_matrix(maps: Sequence[Tensor]) -> Tensor:
    """Compute the cross-layer similarity of L blocks: per pair the mean column similarity over heads and tokens.

    maps: L tensors (B, heads, N, N). Returns (B, L, L) in [-1, 1], symmetric, 1 on the diagonal.
    """
    _require_same_shapes(maps)
    columns = torch.stack([_normalize(block, dim=-2).flatten(1) for block in maps], dim=1)
    return columns @ columns.mT / math.prod(maps[0].shape[1:3])


def count_similar_blocks(matrix: Tensor, *, threshold: float = 0.9) -> int:
    """Count the blocks whose similarity to the previous block is above `threshold`.

    matrix: (L, L), `compute_similarity_matrix` averaged over images. Returns 0..L - 1, as the first block is not
    counted.
    The DeepViT paper counts "similar blocks" with a threshold of 90 %, but does not specify the pairs and the
    averaging. This definition is ours.
    """
    require_cosine(threshold)
    return int((matrix.diagonal(1) > threshold).sum())


def require_cosine(threshold: float) -> None:
    if not -1 <= threshold <= 1:
        raise InputError(f'threshold is a cosine in [-1, 1], got {threshold}')


def compute_head_similarity(maps: Tensor) -> Tensor:
    """Compute the mean cosine between the columns of two heads of one block, over pairs of heads and tokens.

    maps: (B, heads, N, N) with at least two heads. Returns (B,) in [-1, 1].
    """
    heads, count = maps.shape[1:3]
    if heads < 2:
        raise InputError(f'heads are compared with each other: expected two or more, got {heads}')
    columns = _normalize(maps, dim=-2).flatten(2)
    return _average_off_diagonal(columns @ columns.mT / count)


def compute_attention_entropy(maps: Tensor) -> Tensor:
    """Compute the mean of -sum_j A_ij ln A_ij over heads and queries, in nats.

    maps: (B, heads, N, N) of type 'softmax'. Rows of 'reattention' maps are not distributions and have no entropy.
    Returns (B,) in [0, ln N]: 0 if every query attends to one token, ln N if attention is uniform.
    """
    return torch.special.entr(_to_float(maps)).sum(-1).mean((1, 2))


def compute_attention_distance(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Compute the mean distance between query and key patches, weighted by attention, over heads and queries.

    maps: (B, heads, N, N) of type 'softmax'. grid: (h, w), the last h * w tokens are the patches. Class tokens and
    registers are excluded, and each remaining row is scaled to sum 1. Returns (B,) in patches of this grid.
    Based on Dosovitskiy et al. 2021 (ViT, arXiv 2010.11929), figure 7.
    """
    patches = math.prod(grid)
    if patches > maps.shape[-1]:
        raise InputError(f'expected maps of at least {grid[0]}x{grid[1]} tokens, got {maps.shape[-1]}')
    attention = _to_float(maps)[..., -patches:, -patches:]
    weighted = (attention * _compute_distances(grid, attention)).sum(-1)
    return (weighted / attention.sum(-1).clamp_min(torch.finfo(attention.dtype).tiny)).mean((1, 2))


def compute_token_similarity(tokens: Tensor) -> Tensor:
    """Compute the mean cosine between two tokens of an image. tokens: (B, N, D), N >= 2. Returns (B,) in [-1, 1]."""
    if tokens.shape[1] < 2:
        raise InputError(f'tokens are compared with each other: expected two or more, got {tokens.shape[1]}')
    unit = _normalize(tokens, dim=-1)
    return _average_off_diagonal(unit @ unit.mT)


def compute_effective_rank(matrices: Tensor) -> Tensor:
    """Compute exp of the entropy of the singular values, which are first divided by their sum.

    matrices: (..., N, M). Returns (...) in [1, min(N, M)], 1 for a zero matrix.
    Source: Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality".
    """
    values = torch.linalg.svdvals(_to_float(matrices))
    shares = values / values.sum(-1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    return torch.special.entr(shares).sum(-1).exp()


def _to_float(maps: Tensor) -> Tensor:
    """Convert to float32 unless the dtype is wider."""
    return maps.to(torch.promote_types(maps.dtype, torch.float32))


def _normalize(vectors: Tensor, dim: int) -> Tensor:
    vectors = _to_float(vectors)
    return F.normalize(vectors, dim=dim, eps=torch.finfo(vectors.dtype).tiny)


def _require_same_shapes(maps: Sequence[Tensor]) -> None:
    shapes = {tuple(one.shape) for one in maps}
    if len(shapes) != 1:
        raise InputError(f'blocks are compared that have the same number of heads and tokens, got {sorted(shapes)}; '
                         'compare the blocks of one stage')


def _average_off_diagonal(matrix: Tensor) -> Tensor:
    """Average the off-diagonal entries. matrix: (B, n, n). Returns (B,)."""
    count = matrix.shape[-1]
    return (matrix.sum((1, 2)) - matrix.diagonal(dim1=1, dim2=2).sum(1)) / (count * (count - 1))


def _compute_distances(grid: tuple[int, int], like: Tensor) -> Tensor:
    """Return the Euclidean distances between the centers of all pairs of patches, (h w, h w), in row-major order."""
    rows, columns = torch.meshgrid(*(torch.arange(side, device=like.device, dtype=like.dtype) for side in grid),
                                   indexing='ij')
    centers = torch.stack((rows.flatten(), columns.flatten()), dim=1)
    return (centers[:, None] - centers).square().sum(-1).sqrt()
