"""The measures of collapse against numpy's formulas and hand calculations."""

import math

import numpy as np
import pytest
import torch

from pit_downstream.attention import collapse

pytestmark = pytest.mark.numeric


def random_maps(*, batch=2, heads=3, count=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, heads, count, count, generator=generator, dtype=torch.float64).mul(2).softmax(-1)


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


UNIFORM = torch.full((1, 2, 4, 4), 0.25)
IDENTITY = torch.eye(4).expand(1, 2, 4, 4)


def test_column_similarity_is_the_papers_formula():
    first, second = random_maps(seed=1), random_maps(seed=2)
    a, b = first.numpy(), second.numpy()
    expected = [[[cosine(a[i, h, :, t], b[i, h, :, t]) for t in range(7)] for h in range(3)] for i in range(2)]
    np.testing.assert_allclose(collapse.compute_column_similarity(first, second).numpy(), expected, rtol=1e-12)
    rows = [[[cosine(a[i, h, t], b[i, h, t]) for t in range(7)] for h in range(3)] for i in range(2)]
    assert np.abs(np.array(rows) - expected).max() > 0.05  # columns, not rows


def test_column_similarity_by_hand():
    """Columns of the uniform map are (1, 1, 1, 1) / 4, those of the identity unit vectors: cosine 1 / 2."""
    torch.testing.assert_close(collapse.compute_column_similarity(UNIFORM, IDENTITY), torch.full((1, 2, 4), 0.5))
    torch.testing.assert_close(collapse.compute_column_similarity(UNIFORM, 3 * UNIFORM), torch.ones(1, 2, 4))
    torch.testing.assert_close(collapse.compute_column_similarity(UNIFORM, -UNIFORM), -torch.ones(1, 2, 4))
    assert collapse.compute_column_similarity(UNIFORM, torch.zeros(1, 2, 4, 4)).abs().max() == 0


def test_similarity_matrix_averages_heads_and_tokens():
    maps = [random_maps(seed=seed) for seed in range(4)]
    matrix = collapse.compute_similarity_matrix(maps)
    assert matrix.shape == (2, 4, 4)
    for p in range(4):
        for q in range(4):
            expected = collapse.compute_column_similarity(maps[p], maps[q]).mean((1, 2))
            torch.testing.assert_close(matrix[:, p, q], expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(matrix.diagonal(dim1=1, dim2=2), torch.ones(2, 4, dtype=torch.float64))


@pytest.mark.parametrize('threshold, blocks', [(0.9, 2), (0.95, 1), (0.5, 3), (1.0, 0), (-1.0, 4)])
def test_similar_blocks_by_hand(threshold, blocks):
    """Five blocks; each is compared to the one before it only. 'Above' is strict."""
    matrix = torch.eye(5) + 0.99 * (1 - torch.eye(5))
    for i, value in enumerate((0.3, 0.92, 0.99, 0.6)):
        matrix[i, i + 1] = matrix[i + 1, i] = value
    assert collapse.count_similar_blocks(matrix, threshold=threshold) == blocks
    assert collapse.count_similar_blocks(torch.ones(1, 1)) == 0


def test_head_similarity_is_the_mean_over_pairs():
    maps = random_maps()
    a = maps.numpy()
    expected = [np.mean([cosine(a[i, g, :, t], a[i, h, :, t]) for g in range(3) for h in range(3) if g != h
                         for t in range(7)]) for i in range(2)]
    np.testing.assert_allclose(collapse.compute_head_similarity(maps).numpy(), expected, rtol=1e-12)
    both = torch.stack((UNIFORM[0, 0], IDENTITY[0, 0]))[None]
    torch.testing.assert_close(collapse.compute_head_similarity(both), torch.tensor([0.5]))


def test_entropy():
    maps = random_maps()
    a = maps.numpy()
    np.testing.assert_allclose(collapse.compute_attention_entropy(maps).numpy(),
                               -(a * np.log(a)).sum(-1).mean((1, 2)), rtol=1e-12)
    torch.testing.assert_close(collapse.compute_attention_entropy(UNIFORM), torch.tensor([math.log(4)]))
    assert collapse.compute_attention_entropy(IDENTITY).item() == 0


def test_distance_by_hand():
    """Grid 1x3 after a class token. Uniform: rows of distances (0 1 2), (1 0 1), (2 1 0), mean 8 / 9."""
    uniform = torch.full((1, 2, 4, 4), 0.25)
    torch.testing.assert_close(collapse.compute_attention_distance(uniform, (1, 3)), torch.tensor([8 / 9]))
    assert collapse.compute_attention_distance(IDENTITY, (1, 3)).item() == 0
    corner = torch.zeros(1, 1, 6, 6)
    corner[..., 0] = 1  # all look at the first patch of a 2x3 grid: 0, 1, 2, 1, sqrt 2, sqrt 5
    torch.testing.assert_close(collapse.compute_attention_distance(corner, (2, 3)),
                               torch.tensor([(4 + 2 ** 0.5 + 5 ** 0.5) / 6]))


def test_distance_leaves_the_class_token_out():
    maps = random_maps(count=7)
    among = maps[..., 1:, 1:].numpy()
    places = np.array([(y, x) for y in range(2) for x in range(3)])
    between = np.linalg.norm(places[:, None] - places, axis=-1)
    expected = (among / among.sum(-1, keepdims=True) * between).sum(-1).mean((1, 2))
    np.testing.assert_allclose(collapse.compute_attention_distance(maps, (2, 3)).numpy(), expected, rtol=1e-12)


def test_token_similarity():
    tokens = torch.randn(2, 5, 4, dtype=torch.float64)
    a = tokens.numpy()
    expected = [np.mean([cosine(a[i, s], a[i, t]) for s in range(5) for t in range(5) if s != t]) for i in range(2)]
    np.testing.assert_allclose(collapse.compute_token_similarity(tokens).numpy(), expected, rtol=1e-12)
    torch.testing.assert_close(collapse.compute_token_similarity(torch.eye(3)[None]), torch.zeros(1))
    torch.testing.assert_close(collapse.compute_token_similarity(torch.ones(1, 3, 8)), torch.ones(1))


def test_effective_rank():
    """r equal singular values: r. One: 1. Shares 3/4 and 1/4: exp(-(3/4) ln(3/4) - (1/4) ln(1/4))."""
    torch.testing.assert_close(collapse.compute_effective_rank(torch.eye(5)), torch.tensor(5.0))
    torch.testing.assert_close(collapse.compute_effective_rank(torch.ones(2, 3, 6)), torch.ones(2))
    expected = torch.tensor(0.75 ** -0.75 * 0.25 ** -0.25)
    torch.testing.assert_close(collapse.compute_effective_rank(torch.diag(torch.tensor([3.0, 1.0, 0.0]))), expected)
    assert collapse.compute_effective_rank(torch.zeros(2, 2)).item() == 1
    matrix = torch.randn(4, 6, 3, dtype=torch.float64)
    singular = np.linalg.svd(matrix.numpy(), compute_uv=False)
    shares = singular / singular.sum(-1, keepdims=True)
    expected = np.exp(-(shares * np.log(shares)).sum(-1))
    np.testing.assert_allclose(collapse.compute_effective_rank(matrix).numpy(), expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_in_float32(dtype):
    maps = random_maps().to(dtype)
    for measure in (collapse.compute_attention_entropy, collapse.compute_head_similarity,
                    collapse.compute_effective_rank):
        ours = measure(maps)
        assert ours.dtype == torch.float32 and torch.equal(ours, measure(maps.float()))


def test_measures_are_differentiable():
    maps = random_maps().requires_grad_()
    total = sum(measure(maps).sum() for measure in (
        collapse.compute_attention_entropy, collapse.compute_head_similarity,
        lambda maps: collapse.compute_attention_distance(maps, (2, 3))))
    total = total + collapse.compute_similarity_matrix([maps, maps.flip(-1)]).sum()
    total.backward()
    assert maps.grad.isfinite().all() and maps.grad.abs().sum() > 0


@pytest.mark.parametrize('call, words', [
    (lambda: collapse.compute_column_similarity(UNIFORM, UNIFORM[:, :1]), 'the same number of heads and tokens, got'),
    (lambda: collapse.compute_similarity_matrix([UNIFORM, random_maps()]), 'compare the blocks of one stage'),
    (lambda: collapse.count_similar_blocks(torch.eye(2), threshold=90), 'threshold is a cosine in [-1, 1], got 90'),
    (lambda: collapse.compute_head_similarity(UNIFORM[:, :1]), 'expected two or more, got 1'),
    (lambda: collapse.compute_token_similarity(torch.ones(1, 1, 3)), 'expected two or more, got 1'),
    (lambda: collapse.compute_attention_distance(UNIFORM, (2, 3)), 'expected maps of at least 2x3 tokens, got 4'),
])
def test_bad_input_gets_one_sentence(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)
