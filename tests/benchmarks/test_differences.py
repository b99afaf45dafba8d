"""Differences of two models: a published example, the binomial distribution, and how often the interval covers."""

from math import comb, sqrt

import pytest

from pit_downstream.benchmarks.base import Z, compute_weighted_interval, compute_wilson_interval
from pit_downstream.benchmarks.differences import (
    compare_intervals,
    compare_paired,
    compute_mcnemar_p,
    compute_paired_interval,
)


def test_a_published_example():
    """Airway hyper-responsiveness of 21 children before and after a transplantation (Bentur et al. 2009), the example
    of Fagerland, Lydersen & Laake 2014: 1 changed one way, 7 the other. The formula is written out."""
    up, down = 2 / 23, 8 / 23
    spread = Z * sqrt((up + down - (up - down) ** 2) / 23)
    assert compute_paired_interval(1, 7, 21) == pytest.approx((up - down - spread, up - down + spread))
    assert compute_paired_interval(1, 7, 21) == pytest.approx((-.508, -.013), abs=5e-4)
    assert compute_mcnemar_p(1, 7) == 2 * (1 + 8) / 2 ** 8


@pytest.mark.parametrize('gained, lost', [(0, 0), (0, 1), (3, 3), (10, 2), (40, 61), (900, 1100)])
def test_mcnemar_is_the_binomial_test(gained, lost):
    scipy = pytest.importorskip('scipy.stats')
    wanted = scipy.binomtest(gained, gained + lost).pvalue if gained + lost else 1
    assert compute_mcnemar_p(gained, lost) == compute_mcnemar_p(lost, gained) == pytest.approx(wanted)


def test_paired_by_image():
    """Ten images: the second model has two right that the first has wrong, and one the other way round."""
    first = {str(id): id in (0, 1, 2, 3, 4) for id in range(10)}
    second = {str(id): id in (0, 1, 2, 3, 5, 6) for id in range(10)}
    found = compare_paired(first, second)
    assert (found.value, found.count, found.p) == (pytest.approx(.1), 10, 1)
    assert (found.low, found.high) == compute_paired_interval(2, 1, 10)
    with pytest.raises(ValueError, match='expected verdicts on the same images, got 10 and 9, of which 9 are in both'):
        compare_paired(first, {id: right for id, right in second.items() if id != '3'})


@pytest.mark.parametrize('gain, loss', [(.1, .1), (.2, .05), (.4, .3), (.02, .01)])
def test_interval_covers_the_true_difference(gain, loss, count=40):
    """Over every outcome of 40 images, weighted by its probability."""
    covered = 0.
    for gained in range(count + 1):
        for lost in range(count + 1 - gained):
            chance = (comb(count, gained) * comb(count - gained, lost) * gain ** gained * loss ** lost
                      * (1 - gain - loss) ** (count - gained - lost))
            low, high = compute_paired_interval(gained, lost, count)
            covered += chance * (low <= gain - loss <= high)
    assert .94 < covered <= 1


def test_counts_that_cannot_be():
    for counts in ((1, 2, 2), (-1, 0, 5), (0, 0, 0)):
        with pytest.raises(ValueError, match='expected parts of at least one image'):
            compute_paired_interval(*counts)


def test_apart_adds_the_intervals():
    """As for a weighted sum of rates that may be correlated in any way."""
    found = compare_intervals(compute_wilson_interval(.3, 50), compute_wilson_interval(.5, 80), .2)
    assert (found.low, found.high) == pytest.approx(compute_weighted_interval([(1, .5, 80), (-1, .3, 50)]))
    assert found.value == .2 and found.count is None and found.p is None
