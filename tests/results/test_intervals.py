"""Intervals: published examples, the binomial distribution, and how often an interval covers the true value."""

import random
from math import comb, isnan, sqrt

import numpy as np
import pytest

from pit_downstream.results.intervals import (
    Z,
    Estimate,
    compare_intervals,
    compare_paired,
    compare_paired_values,
    compute_mcnemar_p,
    compute_paired_interval,
    compute_weighted_interval,
    compute_wilson_interval,
)
from pit_downstream.utils.errors import InputError


@pytest.mark.parametrize('events, count, low, high', [
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3 (Wilson's score without continuity correction)
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718),
])
def test_wilson_interval_as_published(events, count, low, high):
    assert compute_wilson_interval(events / count, count) == pytest.approx((low, high), abs=5e-5)
    estimate = Estimate.of_rate(events / count, count)
    assert (estimate.low, estimate.high) == compute_wilson_interval(events / count, count)
    assert (float(estimate), estimate.count) == (events / count, count)


def test_wilson_interval_is_symmetric_and_inside_0_and_1():
    low, high = compute_wilson_interval(1., 20)
    assert (1 - high, 1 - low) == pytest.approx(compute_wilson_interval(0., 20)) and high == 1.
    with pytest.raises(InputError, match='got 1.5 and 10'):
        compute_wilson_interval(1.5, 10)
    with pytest.raises(InputError, match='got 0.5 and 0'):
        compute_wilson_interval(0.5, 0)


def test_weighted_interval_adds_the_ends():
    (low_a, high_a), (low_b, high_b) = compute_wilson_interval(.3, 100), compute_wilson_interval(.6, 50)
    assert compute_weighted_interval([(2., .3, 100), (-1., .6, 50)], offset=1.) == pytest.approx(
        (1 + 2 * low_a - high_b, 1 + 2 * high_a - low_b))


def test_weighted_interval_covers_the_mean_when_all_images_agree():
    """Ten conditions with errors on the very same images: the mean rate has the interval of a single one."""
    rng, inside = random.Random(0), 0
    for _ in range(1000):
        rate = sum(rng.random() < .3 for _ in range(200)) / 200
        low, high = compute_weighted_interval([(.1, rate, 200)] * 10)
        inside += low <= .3 <= high
    assert 930 <= inside <= 970  # 95 % +- 3 standard errors of 1000 trials


def test_paired_interval_of_a_published_example():
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
    expected = scipy.binomtest(gained, gained + lost).pvalue if gained + lost else 1
    assert compute_mcnemar_p(gained, lost) == compute_mcnemar_p(lost, gained) == pytest.approx(expected)


def test_compare_paired_counts_gained_and_lost_images():
    """Ten images: the second model has two right that the first has wrong, and one the other way round."""
    first, second = np.isin(np.arange(10), (0, 1, 2, 3, 4)), np.isin(np.arange(10), (0, 1, 2, 3, 5, 6))
    difference = compare_paired(first, second)
    assert (difference.value, difference.count, difference.p) == (pytest.approx(.1), 10, 1)
    assert (difference.low, difference.high) == compute_paired_interval(2, 1, 10)
    with pytest.raises(InputError, match='got 10 and 9'):
        compare_paired(first, second[:9])
    with pytest.raises(InputError, match='got 0 and 0'):
        compare_paired(first[:0], second[:0])


def test_compare_paired_values_has_the_normal_interval_of_the_mean():
    difference = compare_paired_values(np.array([1., 2., 3., 4.]), np.array([2., 2., 5., 4.]))
    spread = Z * sqrt(((1 - .75) ** 2 + .75 ** 2 + (2 - .75) ** 2 + .75 ** 2) / 3 / 4)
    assert difference.value == .75 and difference.count == 4 and difference.p is None
    assert (difference.low, difference.high) == (pytest.approx(.75 - spread), pytest.approx(.75 + spread))
    single = compare_paired_values(np.array([1.]), np.array([3.]))
    assert (single.value, single.low, single.high) == (2, -np.inf, np.inf) and not isnan(single.low)
    with pytest.raises(InputError, match='got 2 and 1'):
        compare_paired_values(np.zeros(2), np.zeros(1))


@pytest.mark.parametrize('gain, loss', [(.1, .1), (.2, .05), (.4, .3), (.02, .01)])
def test_paired_interval_covers_the_true_difference(gain, loss, count=40):
    """Over every outcome of 40 images, weighted by its probability."""
    covered = 0.
    for gained in range(count + 1):
        for lost in range(count + 1 - gained):
            chance = (comb(count, gained) * comb(count - gained, lost) * gain ** gained * loss ** lost
                      * (1 - gain - loss) ** (count - gained - lost))
            low, high = compute_paired_interval(gained, lost, count)
            covered += chance * (low <= gain - loss <= high)
    assert .94 < covered <= 1


@pytest.mark.parametrize('counts', [(1, 2, 2), (-1, 0, 5), (0, 0, 0)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(InputError, match=f'got {counts[0]} and {counts[1]} of {counts[2]}'):
        compute_paired_interval(*counts)


def test_compare_intervals_adds_the_intervals():
    """As for a weighted sum of rates that may be correlated in any way."""
    difference = compare_intervals(compute_wilson_interval(.3, 50), compute_wilson_interval(.5, 80), .2)
    assert (difference.low, difference.high) == pytest.approx(compute_weighted_interval([(1, .5, 80), (-1, .3, 50)]))
    assert difference.value == .2 and difference.count is None and difference.p is None
