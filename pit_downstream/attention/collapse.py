"""Measures of attention collapse (Zhou et al. 2021, DeepViT, arXiv 2103.11886): pure functions, one number an image.

Maps are (B, heads, N, N) with rows as queries; column t is how token t contributes to each of the N outputs.
Everything is computed in float32 or better; a cosine with a vector of zeros is 0.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def column_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Cosine between the columns of two blocks' maps, per head and token: M_ht = cos(A_h:t, A'_h:t).

    first, second: (B, heads, N, N). Returns (B, heads, N) in [-1, 1].
    Source: Zhou et al. 2021, equation of the cross-layer similarity.
    """
    _require_same_shapes((first, second))
    return (_unit_columns(first) * _unit_columns(second)).sum(-2)


def similarity_matrix(maps: Sequence[Tensor]) -> Tensor:
    """Cross-layer similarity of L blocks: the mean over heads and tokens of `column_similarity` of every pair.

    maps: L tensors (B, heads, N, N). Returns (B, L, L) in [-1, 1], symmetric, 1 on the diagonal.
    """
    _require_same_shapes(maps)
    columns = torch.stack([_unit_columns(one).flatten(1) for one in maps], dim=1)
    return columns @ columns.mT / math.prod(maps[0].shape[1:3])


def similar_blocks(matrix: Tensor, *, threshold: float = 0.9) -> int:
    """How many blocks have a similarity above `threshold` to the block just before them.

    matrix: (L, L), `similarity_matrix` averaged over images. Returns 0 .. L - 1; the first block is never similar.
    The DeepViT paper counts "similar blocks" with a threshold of 90 %, but which pairs it compares and how it
    averages is not known to us; this definition is ours.
    """
    require_cosine(threshold)
    return int((matrix.diagonal(1) > threshold).sum())


def similar_ratio(matrix: Tensor, *, threshold: float = 0.9) -> float:
    """`similar_blocks` as a share of all L blocks, in [0, 1 - 1 / L]."""
    return similar_blocks(matrix, threshold=threshold) / len(matrix)


def require_cosine(threshold: float) -> None:
    if not -1 <= threshold <= 1:
        raise ValueError(f'threshold is a cosine in [-1, 1], got {threshold}')


def head_similarity(maps: Tensor) -> Tensor:
    """Mean cosine between the columns of two different heads of one block, over pairs of heads and tokens.

    maps: (B, heads, N, N) of at least two heads. Returns (B,) in [-1, 1].
    """
    heads, count = maps.shape[1:3]
    if heads < 2:
        raise ValueError(f'heads are compared with each other: expected two or more, got {heads}')
    columns = _unit_columns(maps).flatten(2)
    return _mean_off_diagonal(columns @ columns.mT / count)


def attention_entropy(maps: Tensor) -> Tensor:
    """Mean over heads and queries of -sum_j A_ij ln A_ij, in nats.

    maps: (B, heads, N, N) of kind 'softmax'; for 'reattention', whose rows are no distributions, it is not defined.
    Returns (B,) in [0, ln N]: 0 where every query looks at one token, ln N where at all alike.
    """
    return torch.special.entr(_real(maps)).sum(-1).mean((1, 2))


def attention_distance(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean distance between a patch and the patches it looks at, weighted by attention, over heads and queries.

    maps: (B, heads, N, N) of kind 'softmax'; grid: (h, w), the last h * w tokens are the patches. Class tokens and
    registers are left out, and each row of what remains is scaled to sum 1. Returns (B,) in patches of this grid.
    Source of the idea: Dosovitskiy et al. 2021 (ViT, arXiv 2010.11929), figure 7.
    """
    patches = math.prod(grid)
    if patches > maps.shape[-1]:
        raise ValueError(f'expected maps of at least {grid[0]}x{grid[1]} tokens, got {maps.shape[-1]}')
    among = _real(maps)[..., -patches:, -patches:]
    weighted = (among * _distances(grid, among)).sum(-1)
    return (weighted / among.sum(-1).clamp_min(torch.finfo(among.dtype).tiny)).mean((1, 2))


def token_similarity(tokens: Tensor) -> Tensor:
    """Mean cosine between two different tokens of an image. tokens: (B, N, D), N >= 2. Returns (B,) in [-1, 1]."""
    if tokens.shape[1] < 2:
        raise ValueError(f'tokens are compared with each other: expected two or more, got {tokens.shape[1]}')
    unit = _unit(tokens, dim=-1)
    return _mean_off_diagonal(unit @ unit.mT)


def effective_rank(matrices: Tensor) -> Tensor:
    """exp of the entropy of the singular values divided by their sum.

    matrices: (..., N, M). Returns (...) in [1, min(N, M)]; 1 for a matrix of zeros.
    Source: Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality".
    """
    values = torch.linalg.svdvals(_real(matrices))
    shares = values / values.sum(-1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    return torch.special.entr(shares).sum(-1).exp()


def _real(maps: Tensor) -> Tensor:
    """In float32 or better."""
    return maps.to(torch.promote_types(maps.dtype, torch.float32))


def _unit_columns(maps: Tensor) -> Tensor:
    return _unit(maps, dim=-2)


def _unit(vectors: Tensor, dim: int) -> Tensor:
    vectors = _real(vectors)
    return F.normalize(vectors, dim=dim, eps=torch.finfo(vectors.dtype).tiny)


def _require_same_shapes(maps: Sequence[Tensor]) -> None:
    shapes = {tuple(one.shape) for one in maps}
    if len(shapes) != 1:
        raise ValueError(f'blocks are compared that have the same number of heads and tokens, got {sorted(shapes)}; '
                         'compare the blocks of one stage')


def _mean_off_diagonal(matrix: Tensor) -> Tensor:
    """matrix: (B, n, n). Returns (B,)."""
    count = matrix.shape[-1]
    return (matrix.sum((1, 2)) - matrix.diagonal(dim1=1, dim2=2).sum(1)) / (count * (count - 1))


def _distances(grid: tuple[int, int], like: Tensor) -> Tensor:
    """Euclidean distance between the centers of all pairs of patches, (h w, h w), row by row."""
    rows, columns = torch.meshgrid(*(torch.arange(side, device=like.device, dtype=like.dtype) for side in grid),
                                   indexing='ij')
    places = torch.stack((rows.flatten(), columns.flatten()), dim=1)
    return (places[:, None] - places).square().sum(-1).sqrt()
