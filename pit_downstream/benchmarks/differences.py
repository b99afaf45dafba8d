"""Differences of rates between two models, paired by image if both were measured on the same images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pit_downstream.benchmarks.base import Z
from pit_downstream.utils.errors import InputError

Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """Difference second - first with its 95 % interval. count: of images if paired by image, otherwise None.

    p: two-sided, of McNemar's exact test, if paired: how often two equally good models would differ by as much.
    """

    value: float
    low: float
    high: float
    count: int | None = None
    p: float | None = None


def compare_paired(first: Mapping[str, bool], second: Mapping[str, bool]) -> Difference:
    """Compute the fraction that `second` has right minus the fraction that `first` has, on the same images by id.

    Raises InputError if the images differ.
    """
    if first.keys() != second.keys() or not first:
        raise InputError(f'expected verdicts on the same images, got {len(first)} and {len(second)}, of which '
                         f'{len(first.keys() & second.keys())} are in both; measure both models to the end')
    gained = sum(second[id] and not right for id, right in first.items())
    lost = sum(right and not second[id] for id, right in first.items())
    return Difference((gained - lost) / len(first), *compute_paired_interval(gained, lost, len(first)), len(first),
                      compute_mcnemar_p(gained, lost))


def compute_paired_interval(gained: int, lost: int, count: int) -> Interval:
    """Compute the 95 % interval of (gained - lost) / count, for two rates on the same `count` images.

    gained, lost: images that only the second, only the first has right. Wald's interval with one image added to each
    (Bonett & Price 2012, Journal of Educational and Behavioral Statistics 37, 479-488), clipped to [-1, 1]. Fagerland,
    Lydersen & Laake 2014 (Statistics in Medicine 33, 2850-2875) recommend it, among others.
    """
    if min(gained, lost) < 0 or count < max(1, gained + lost):
        raise InputError(f'expected parts of at least one image, got {gained} gained and {lost} lost of {count}')
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
    true value with at least 95 % for any correlation, as far as both are normal (base.weighted_interval).
    """
    return Difference(value, second[0] - first[1], second[1] - first[0])
