"""Estimates, confidence intervals of rates, and differences of rates between two models."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pit_downstream.utils.errors import InputError

if TYPE_CHECKING:
    import numpy as np

Z = 1.959963984540054  # 97.5 % quantile of the standard normal: 95 % are within +-Z

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, None without one. count: images behind it, None for a mean over conditions."""

    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None

    def __float__(self) -> float:
        return self.value

    @classmethod
    def of_rate(cls, rate: float, count: int) -> 'Estimate':
        """Return a rate of `count` images with its Wilson interval."""
        return cls(rate, *compute_wilson_interval(rate, count), count)


@dataclass(frozen=True)
class Difference:
    """Difference second - first with its 95 % interval.

    count: images, if the two are paired by image, otherwise None. p: two-sided p-value of McNemar's exact test, if
    paired: how often two equally good models would differ by as much.
    """

    value: float
    low: float
    high: float
    count: int | None = None
    p: float | None = None


def compute_wilson_interval(rate: float, count: int) -> Interval:
    """Compute the 95 % interval of a probability observed as `rate` in `count` independent trials (Wilson 1927)."""
    if count < 1 or not 0 <= rate <= 1:
        raise InputError(f'a rate must be in [0, 1] and its count at least 1, got {rate} and {count}. Check the '
                         'record.')
    spread = Z * math.sqrt(rate * (1 - rate) / count + (Z / (2 * count)) ** 2)
    middle, scale = rate + Z * Z / (2 * count), 1 + Z * Z / count
    return max(0., (middle - spread) / scale), min(1., (middle + spread) / scale)


def compute_weighted_interval(terms: Iterable[tuple[float, float, int]], offset: float = 0.) -> Interval:
    """Compute an interval of offset + sum of weight * rate, for rates measured on the same images.

    Rates on the same images have an unknown correlation. Adding the ends of the Wilson intervals covers the true value
    with at least 95 % for any correlation, as far as the rates are normal.

    Args:
        terms: (weight, rate, count).
    """
    low, high = [offset], [offset]
    for weight, rate, count in terms:
        ends = sorted(weight * end for end in compute_wilson_interval(rate, count))
        low.append(ends[0])
        high.append(ends[1])
    return math.fsum(low), math.fsum(high)


def compare_paired(first: 'np.ndarray', second: 'np.ndarray') -> Difference:
    """Compute the fraction that `second` has right minus the fraction that `first` has.

    Args:
        first, second: bool (N,), whether each of the same images is classified correctly.
    """
    if len(first) != len(second) or not len(first):
        raise InputError(f'paired outcomes must be of the same images, got {len(first)} and {len(second)}. Evaluate '
                         'both models to the end.')
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    return Difference((gained - lost) / len(first), *compute_paired_interval(gained, lost, len(first)), len(first),
                      compute_mcnemar_p(gained, lost))


def compare_paired_values(first: 'np.ndarray', second: 'np.ndarray') -> Difference:
    """Compute the mean of second - first, float (N,) on the same images, with the normal interval of the mean."""
    if len(first) != len(second) or not len(first):
        raise InputError(f'paired outcomes must be of the same images, got {len(first)} and {len(second)}. Evaluate '
                         'both models to the end.')
    change = second.astype(float) - first.astype(float)
    mean = math.fsum(change) / len(change)
    spread = Z * float(change.std(ddof=1)) / math.sqrt(len(change)) if len(change) > 1 else math.inf
    return Difference(mean, mean - spread, mean + spread, len(change))


def compute_paired_interval(gained: int, lost: int, count: int) -> Interval:
    """Compute the 95 % interval of (gained - lost) / count, for two rates on the same `count` images.

    Wald's interval with one image added to each number (Bonett & Price 2012, Journal of Educational and Behavioral
    Statistics 37, 479-488), clipped to [-1, 1]. Fagerland, Lydersen & Laake 2014 (Statistics in Medicine 33, 2850-2875)
    recommend it, among others.

    Args:
        gained, lost: images that only the second, only the first has right.
    """
    if min(gained, lost) < 0 or count < max(1, gained + lost):
        raise InputError(f'gained and lost must be parts of the images, got {gained} and {lost} of {count}. Check the '
                         'outcomes.')
    up, down = (gained + 1) / (count + 2), (lost + 1) / (count + 2)
    spread = Z * math.sqrt((up + down - (up - down) ** 2) / (count + 2))
    return max(-1., up - down - spread), min(1., up - down + spread)


def compute_mcnemar_p(gained: int, lost: int) -> float:
    """Compute the two-sided p-value of McNemar's exact test, a sign test of the images on which two models differ.

    Source: McNemar 1947. Exact: twice the smaller tail of the binomial distribution with probability 1/2, at most 1.
    """
    total, term, tail = gained + lost, 1, 0
    for number in range(min(gained, lost) + 1):
        tail += term
        term = term * (total - number) // (number + 1)
    return min(1., 2 * tail / 2 ** total)


def compare_intervals(first: Interval, second: Interval, value: float) -> Difference:
    """Return a difference `value` of two numbers of which only the intervals are known.

    Its interval is from the lower end of the second minus the upper end of the first to the opposite. It covers the
    true value with at least 95 % for any correlation, as far as both are normal.
    """
    return Difference(value, second[0] - first[1], second[1] - first[0])
