"""The streams of random numbers, against their distributions and for their independence of the batch."""
import numpy as np
import pytest
import scipy.stats
import torch

from pit_downstream.corruptions import BatchRng, compute_seed, corrupt_images
from pit_downstream.utils.poisson import make_poisson_table


def test_seeds_depend_on_every_part():
    seeds = {compute_seed(0, 'a', 'fog'), compute_seed(1, 'a', 'fog'), compute_seed(0, 'b', 'fog'),
             compute_seed(0, 'a', 'frost'),
             compute_seed('a', 0, 'fog'), compute_seed('0', 'a', 'fog'), compute_seed(0, 'afog'),
             compute_seed(0, 'a', '', 'fog')}
    assert len(seeds) == 8 and all(0 <= seed < 2 ** 63 for seed in seeds)


def test_seeds_are_the_same_in_every_process():
    """blake2b of the parts' repr, worked out by hand; Python's own hash would differ from run to run."""
    from hashlib import blake2b
    digest = blake2b(b"0\0'a'\0'fog'", digest_size=8).digest()
    assert compute_seed(0, 'a', 'fog') == int.from_bytes(digest, 'big') // 2


@pytest.mark.parametrize('draw, cdf', [
    (lambda rng: rng.normal((1, 20000)), scipy.stats.norm.cdf),
    (lambda rng: rng.uniform((1, 20000)), scipy.stats.uniform.cdf),
])
def test_continuous_fields(draw, cdf):
    assert scipy.stats.kstest(draw(BatchRng(1, ['x']))[0].numpy(), cdf).pvalue > .01


@pytest.mark.parametrize('low, high', [(-1, 1), (-2, 2), (-3, 3), (-4, 4), (0, 5), (0, 300)])
def test_integers_are_even(low, high):
    drawn = BatchRng(2, ['x']).integers(low, high, (1, 60000))[0].numpy()
    assert drawn.min() == low and drawn.max() == high - 1
    assert scipy.stats.chisquare(np.bincount(drawn - low)).pvalue > .001


def test_integers_with_one_bound_per_image():
    rng = BatchRng(2, range(400))
    drawn = rng.integers(0, torch.tensor([3, 7] * 200), (400,))
    assert set(drawn[::2].tolist()) == set(range(3)) and set(drawn[1::2].tolist()) == set(range(7))


@pytest.mark.parametrize('rate', [.1, 3, 12, 60])
def test_poisson_counts(rate):
    """The quick way, by a table, and torch's own."""
    for drawn in (BatchRng(3, ['x']).poisson(torch.tensor([0, rate]), torch.ones(1, 40000, dtype=torch.uint8)),
                  BatchRng(3, ['x']).poisson(torch.full((1, 40000), float(rate)))):
        edges = np.arange(*scipy.stats.poisson.ppf([.01, .99], rate).astype(int))
        observed = np.bincount(np.searchsorted(edges, drawn[0].numpy()), minlength=len(edges) + 1)
        below = scipy.stats.poisson.cdf(edges, rate)
        expected = np.diff(np.concatenate(([0], below, [1]))) * 40000
        assert scipy.stats.chisquare(observed, expected).pvalue > .001


def test_poisson_by_table_is_the_inverse_distribution():
    """At every random number tried, those of all buckets' ends among them, scipy's quantile."""
    rates = np.array([0, .2, 5, 59.9])
    table = make_poisson_table(tuple(rates), torch.device('cpu'))
    bits = torch.cat((torch.arange(0, 2 ** 31, 2 ** 20), torch.arange(0, 2 ** 31, 2 ** 20) + 2 ** 20 - 1)).int()
    for index, rate in enumerate(rates[1:], 1):
        ours = table.lookup_counts(torch.full(bits.shape, index, dtype=torch.uint8), bits)
        theirs = scipy.stats.poisson.ppf((bits.double().numpy() + .5) / 2 ** 31, rate)
        assert np.array_equal(ours.numpy(), theirs)
    assert table.lookup_counts(torch.zeros(bits.shape, dtype=torch.uint8), bits).abs().max() == 0


def test_poisson_table_refuses_what_it_cannot_count():
    with pytest.raises(ValueError, match=r'expected rates up to 60, got 200; call poisson\(rate\) without index'):
        BatchRng(0, [0]).poisson(torch.tensor([200.]), torch.zeros(1, 3, dtype=torch.uint8))


def test_streams_do_not_know_their_neighbours():
    """Whatever other images are drawn for, and whatever was drawn before in another call."""
    both, alone = BatchRng(4, ['a', 'b']), BatchRng(4, ['b'])
    assert torch.equal(both.normal((2, 5))[1], alone.normal((1, 5))[0])
    assert torch.equal(both.uniform((2, 7))[1], alone.uniform((1, 7))[0])
    assert not torch.equal(both.uniform((2, 7)), both.uniform((2, 7)))
    assert not torch.equal(BatchRng(5, ['b']).normal((1, 5)), BatchRng(4, ['b']).normal((1, 5)))


@pytest.mark.parametrize('ids', [
    [0, 1], range(2), (0, 1), ['0', '1'], np.arange(2), np.arange(2, dtype=np.uint8), list(np.arange(2)),
    np.array(['0', '1']), torch.arange(2), torch.arange(2, dtype=torch.int32), list(torch.arange(2))],
    ids=lambda ids: f'{type(ids).__name__} of {type(ids[0]).__name__} {getattr(ids, "dtype", "")}')
def test_ids_are_defined_by_value(ids):
    assert torch.equal(BatchRng(0, ids).normal((2, 4)), BatchRng(0, ['0', '1']).normal((2, 4)))
    images = torch.full((2, 3, 32, 32), 128, dtype=torch.uint8)
    assert torch.equal(corrupt_images(images, 'gaussian_noise', 3, ids=ids),
                       corrupt_images(images, 'gaussian_noise', 3, ids=['0', '1']))
    rows = BatchRng(0, ids).rows([1, 0], [0, 2], 'pgd', 'cpu')
    assert torch.equal(rows.normal((2, 4)), BatchRng(0, ['0', '1']).rows([1, 0], [0, 2], 'pgd', 'cpu').normal((2, 4)))


def test_text_ids_draw_what_they_always_drew():
    """Published numbers rest on these: blake2b of the parts, the id as text."""
    expected = torch.empty(4).normal_(generator=torch.Generator().manual_seed(compute_seed(7, 'n01/a.JPEG', 'fog', 0)))
    assert torch.equal(BatchRng(7, ['n01/a.JPEG'], purpose='fog').normal((1, 4))[0], expected)
    expected = torch.empty(4).normal_(generator=torch.Generator().manual_seed(compute_seed(7, ('n01/a.JPEG', 2), 'PGD',
                                                                                           0)))
    assert torch.equal(BatchRng(7, ['n01/a.JPEG']).rows([0], [2], 'PGD', 'cpu').normal((1, 4))[0], expected)


@pytest.mark.parametrize('wrong', [0.5, None, True, b'a', torch.tensor(1.), np.float64(1), torch.arange(2)[None]])
def test_ids_of_other_types_are_refused(wrong):
    with pytest.raises(ValueError, match='expected a string or an integer as image id'):
        BatchRng(0, [wrong])


def test_restarting_repeats_and_kept_fields_are_copies():
    rng = BatchRng(6, ['a'])
    rng.restart(keep=True)
    first = rng.normal((1, 4))
    before = first.clone()
    first.zero_()
    rng.restart()
    assert torch.equal(rng.normal((1, 4)), before)


def test_shapes_begin_with_the_number_of_images():
    with pytest.raises(ValueError, match=r'begins with 2, the number of ids, got \(3, 5\); give one id per image'):
        BatchRng(0, ['a', 'b']).normal((3, 5))
