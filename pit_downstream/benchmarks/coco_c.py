"""COCO-C, the Robust Detection Benchmark (Michaelis et al. 2019, 1907.07484): AP under corruptions, mPC and rPC."""

import math
from collections.abc import Iterable

from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.records import Key, Table
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Value
from pit_downstream.benchmarks.base import Benchmark
from pit_downstream.benchmarks.imagenet_c import CORRUPTIONS, HOLD_OUT, SEVERITIES, condition, conditions

__all__ = ['CORRUPTIONS', 'HOLD_OUT', 'METRICS', 'SEVERITIES', 'condition', 'conditions', 'measured', 'require',
           'summarise']

# Of boxes, of masks; the dataset and the detector determine which are available
METRICS = tuple(f'{kind}{name}' for kind in ('', 'mask_') for name in
                ('AP', 'AP50', 'AP75', 'AP_small', 'AP_medium', 'AP_large'))


def measured(table: Table) -> tuple[str, ...]:
    """Return the metrics with a record in `table`, in the order of METRICS; AP for an empty table."""
    held = {record.metric for record in table.records}
    return tuple(metric for metric in METRICS if metric in held) or METRICS[:1]


def performance_under_corruption(table: Table, metric: str, corruptions: Iterable[str] = CORRUPTIONS,
                                 severities: Iterable[int] = SEVERITIES, /, **variant: Value) -> float:
    """Compute the mean of `metric` over corruptions and severities; mPC by default."""
    keys = [(condition(name, severity, **variant), metric) for name in corruptions for severity in severities]
    require(table, keys)
    return math.fsum(table[key] for key in keys) / len(keys)


def summarise(table: Table, **variant: Value) -> dict[str, float]:
    """Compute P (clean), mPC, rPC = mPC / P, and mPC per corruption and per severity, for each metric, in fractions.

    Keys are like 'mPC(AP)', 'mPC(AP, fog)', 'mPC(AP, severity=3)'. If P is 0, rPC is omitted.
    Raises MissingMeasurement with every missing condition and the command that measures them.
    """
    metrics = measured(table)
    require(table, [(one, metric) for metric in metrics for one in conditions(**variant)])
    summary: dict[str, float] = {}
    for metric in metrics:
        clean, mean = table[CLEAN, metric], performance_under_corruption(table, metric, **variant)
        summary |= {f'P({metric})': clean, f'mPC({metric})': mean}
        summary |= {f'rPC({metric})': mean / clean} if clean else {}
        summary |= {f'mPC({metric}, {name})': performance_under_corruption(table, metric, [name], **variant)
                    for name in CORRUPTIONS}
        summary |= {f'mPC({metric}, severity={severity})': performance_under_corruption(
            table, metric, CORRUPTIONS, [severity], **variant) for severity in SEVERITIES}
    return summary


def require(table: Table, keys: Iterable[Key]) -> None:
    """Raise MissingMeasurement for keys missing from `table`, with the flags that measure them."""
    missing = [Condition.parse(str(key[0])).corruption for key in keys if key not in table]
    specs = [spec for spec in missing if spec is not None]
    flags = ''
    if specs:
        names = dict.fromkeys(spec.name for spec in specs)
        severities = sorted({str(spec.get('severity')) for spec in specs})
        flags = f' --corruptions {" ".join(names)} --severities {" ".join(severities)}'
        flags += ' --bgr' * any(spec.get('order') == 'bgr' for spec in specs)
    table.require(keys, command=f'python tools/eval_coco_c.py CONFIG CHECKPOINT{flags} and the other flags of the '
                                'first run')


BENCHMARKS.register('coco_c')(
    Benchmark('coco_c', dataset='coco', conditions=conditions(), metrics=METRICS[:6], summarise=summarise))
