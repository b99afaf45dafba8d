"""How much better one model is than another: differences of rates, paired by image where both were asked the same."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pit_downstream.benchmarks.base import Z

Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """second - first with its 95 % interval. count: of images where it is paired by image, otherwise None.

    p: of the exact test of McNemar where it is paired, two-sided: how often two models that are equally good would
    differ by as much.
    """

    value: float
    low: float
    high: float
    count: int | None = None
    p: float | None = None


def paired(first: Mapping[str, bool], second: Mapping[str, bool]) -> Difference:
    """The share that `second` has right less the share that `first` has, on the same images, by their ids.

    Raises ValueError where the images are not the same.
    """
    if first.keys() != second.keys() or not first:
        raise ValueError(f'expected verdicts on the same images, got {len(first)} and {len(second)}, of which '
                         f'{len(first.keys() & second.keys())} are in both; measure both models to the end')
    gained = sum(second[id] and not right for id, right in first.items())
    lost = sum(right and not second[id] for id, right in first.items())
    return Difference((gained - lost) / len(first), *paired_interval(gained, lost, len(first)), len(first),
                      mcnemar(gained, lost))


def paired_interval(gained: int, lost: int, count: int) -> Interval:
    """The 95 % interval of (gained - lost) / count, of two rates on the same `count` images.

    gained, lost: the images that only the second, only the first has right. Wald's interval after one image is added to
    either (Bonett & Price 2012, Journal of Educational and Behavioral Statistics 37, 479-488), one of those that
    Fagerland, Lydersen & Laake 2014 (Statistics in Medicine 33, 2850-2875) recommend; cut at -1 and 1.
    """
    if min(gained, lost) < 0 or count < max(1, gained + lost):
        raise ValueError(f'expected parts of at least one image, got {gained} gained and {lost} lost of {count}')
    up, down = (gained + 1) / (count + 2), (lost + 1) / (count + 2)
    spread = Z * math.sqrt((up + down - (up - down) ** 2) / (count + 2))
    return max(-1., up - down - spread), min(1., up - down + spread)


def mcnemar(gained: int, lost: int) -> float:
    """The two-sided p-value of McNemar's test in its exact form, a sign test of the images on which two models differ.

    Source: McNemar 1947; exact: twice the smaller tail of the binomial distribution with probability 1/2, at most 1.
    """
    total, term, tail = gained + lost, 1, 0
    for number in range(min(gained, lost) + 1):
        tail += term
        term = term * (total - number) // (number + 1)
    return min(1., 2 * tail / 2 ** total)


def apart(first: Interval, second: Interval, value: float) -> Difference:
    """A difference `value` of two numbers of which only the intervals are known.

    Its interval goes from the lower end of the second less the upper end of the first to the opposite: it covers the
    truth with at least 95 % however the two are correlated, as far as they are normal (base.weighted_interval).
    """
    return Difference(value, second[0] - first[1], second[1] - first[0])
