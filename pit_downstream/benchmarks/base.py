"""Benchmark class, and confidence intervals of measured rates."""

import math
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pit_downstream.results.condition import Condition
from pit_downstream.results.records import Table, get_weights_label
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import Spec

Z = 1.959963984540054  # 97.5 % quantile of the standard normal: 95 % are within +-Z


@dataclass(frozen=True)
class Benchmark:
    """Conditions, metrics and summary of a benchmark.

    dataset: name of the Spec under which its samples are recorded. summarise: pure function of the table or, for
    several datasets, of tables by name. It raises MissingMeasurement if anything it needs is missing.
    """

    name: str
    dataset: str
    conditions: tuple[Condition, ...]
    metrics: tuple[str, ...]
    summarize: Callable[..., dict[str, float]]


def require_counts(table: Table, images: int, *, allow_missing: int = 0) -> None:
    """Raise InputError for a record of fewer than images - allow_missing images."""
    for record in table.records:
        if record.count < images - allow_missing:
            raise InputError(f'expected {images} images behind every number of {table.model} on {table.dataset}, got '
                             f'{record.count} under {record.condition}; {images - record.count} could not be read when '
                             'it was measured: fix them and remove these records, or accept the gap with '
                             f'--allow-missing {images - record.count}')


def format_model_flag(model: str) -> str:
    """Return --model as a shell argument from a recorded model name, whose weights are named without their folder."""
    kwargs = ('weights', 'amp', 'search', 'mean', 'std')  # added by build_classifier
    spec, label = Spec.parse(model).without(*kwargs), get_weights_label(model)
    foreign = label.startswith(('local-dir:', 'hf-hub:', 'hf_hub:'))  # the weights name the model
    return f'--model {shlex.quote(label if foreign else str(spec))}'


def compute_wilson_interval(rate: float, count: int) -> tuple[float, float]:
    """Compute the 95 % interval of a probability observed as `rate` in `count` independent trials (Wilson 1927)."""
    if count < 1 or not 0 <= rate <= 1:
        raise InputError(f'expected a rate in [0, 1] and a count of at least 1, got {rate} and {count}')
    spread = Z * math.sqrt(rate * (1 - rate) / count + (Z / (2 * count)) ** 2)
    middle, scale = rate + Z * Z / (2 * count), 1 + Z * Z / count
    return max(0., (middle - spread) / scale), min(1., (middle + spread) / scale)


def compute_weighted_interval(terms: Iterable[tuple[float, float, int]], offset: float = 0.) -> tuple[float, float]:
    """Compute an interval of offset + sum of weight * rate, for rates measured on the same images.

    terms: (weight, rate, count). Rates on the same images have an unknown correlation. Adding the ends of the Wilson
    intervals covers the true value with at least 95 % for any correlation, as far as the rates are normal.
    """
    low, high = [offset], [offset]
    for weight, rate, count in terms:
        ends = sorted(weight * end for end in compute_wilson_interval(rate, count))
        low.append(ends[0])
        high.append(ends[1])
    return math.fsum(low), math.fsum(high)
