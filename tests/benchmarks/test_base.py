import random

import pytest

from pit_downstream.benchmarks.base import compute_weighted_interval, compute_wilson_interval


@pytest.mark.parametrize('seen, count, low, high', [
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3 (Wilson's score without continuity correction)
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718),
])
def test_wilson_as_published(seen, count, low, high):
    assert compute_wilson_interval(seen / count, count) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_symmetric_and_stays_inside():
    low, high = compute_wilson_interval(1., 20)
    assert (1 - high, 1 - low) == pytest.approx(compute_wilson_interval(0., 20)) and high == 1.
    with pytest.raises(ValueError, match='expected a rate in .* got 1.5 and 10'):
        compute_wilson_interval(1.5, 10)
    with pytest.raises(ValueError, match='got 0.5 and 0'):
        compute_wilson_interval(0.5, 0)


def test_a_weighted_interval_adds_the_ends():
    (low_a, high_a), (low_b, high_b) = compute_wilson_interval(.3, 100), compute_wilson_interval(.6, 50)
    assert compute_weighted_interval([(2., .3, 100), (-1., .6, 50)], offset=1.) == pytest.approx(
        (1 + 2 * low_a - high_b, 1 + 2 * high_a - low_b))


def test_interval_covers_the_mean_when_all_images_agree():
    """Ten conditions that err on the very same images: the mean rate has the interval of a single one."""
    rng, inside = random.Random(0), 0
    for _ in range(1000):
        rate = sum(rng.random() < .3 for _ in range(200)) / 200
        low, high = compute_weighted_interval([(.1, rate, 200)] * 10)
        inside += low <= .3 <= high
    assert 930 <= inside <= 970  # 95 % +- 3 standard errors of 1000 trials
