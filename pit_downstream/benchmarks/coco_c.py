"""COCO-C, the Robust Detection Benchmark (Michaelis et al. 2019, 1907.07484): AP under corruptions, mPC and rPC."""

import json
import math
from collections.abc import Iterable, Sequence

from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.records import Key, MissingMeasurement, Table
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Value
from pit_downstream.benchmarks.base import Benchmark
from pit_downstream.benchmarks.imagenet_c import CORRUPTIONS, SEVERITIES, list_conditions, make_condition
from pit_downstream.benchmarks.tables import align_columns, average_or_none, format_number, make_row

# Of boxes, of masks; the dataset and the detector determine which are available
METRICS = tuple(f'{kind}{name}' for kind in ('', 'mask_') for name in
                ('AP', 'AP50', 'AP75', 'AP_small', 'AP_medium', 'AP_large'))


def list_measured_metrics(table: Table) -> tuple[str, ...]:
    """Return the metrics with a record in `table`, in the order of METRICS; AP for an empty table."""
    held = {record.metric for record in table.records}
    return tuple(metric for metric in METRICS if metric in held) or METRICS[:1]


def compute_mpc(table: Table, metric: str, corruptions: Iterable[str] = CORRUPTIONS,
                severities: Iterable[int] = SEVERITIES, /, **variant: Value) -> float:
    """Compute the mean of `metric` over corruptions and severities; mPC by default."""
    keys = [(make_condition(name, severity, **variant), metric) for name in corruptions for severity in severities]
    require_measured(table, keys)
    return math.fsum(table[key] for key in keys) / len(keys)


def summarize(table: Table, **variant: Value) -> dict[str, float]:
    """Compute P (clean), mPC, rPC = mPC / P, and mPC per corruption and per severity, for each metric, in fractions.

    Keys are like 'mPC(AP)', 'mPC(AP, fog)', 'mPC(AP, severity=3)'. If P is 0, rPC is omitted.
    Raises MissingMeasurement with every missing condition and the command that measures them.
    """
    metrics = list_measured_metrics(table)
    require_measured(table, [(one, metric) for metric in metrics for one in list_conditions(**variant)])
    summary: dict[str, float] = {}
    for metric in metrics:
        clean, mean = table[CLEAN, metric], compute_mpc(table, metric, **variant)
        summary |= {f'P({metric})': clean, f'mPC({metric})': mean}
        summary |= {f'rPC({metric})': mean / clean} if clean else {}
        summary |= {f'mPC({metric}, {name})': compute_mpc(table, metric, [name], **variant)
                    for name in CORRUPTIONS}
        summary |= {f'mPC({metric}, severity={severity})': compute_mpc(
            table, metric, CORRUPTIONS, [severity], **variant) for severity in SEVERITIES}
    return summary


def require_measured(table: Table, keys: Iterable[Key]) -> None:
    """Raise MissingMeasurement for keys missing from `table`, with the flags that measure them."""
    missing = [Condition.parse(str(key[0])).corruption for key in keys if key not in table]
    specs = [spec for spec in missing if spec is not None]
    flags = ''
    if specs:
        names = dict.fromkeys(spec.name for spec in specs)
        severities = sorted({str(spec.get('severity')) for spec in specs})
        flags = f' --corruptions {" ".join(names)} --severities {" ".join(severities)}'
        flags += ' --bgr' * any(spec.get('order') == 'bgr' for spec in specs)
    table.require(keys, command=f'pit-downstream eval-coco-c --model CONFIG --weights CHECKPOINT{flags} and the other '
                                'flags of the first run')


def format_table(table: Table, metric: str, corruptions: Sequence[str], severities: Sequence[int],
                 **variant: Value) -> str:
    """Return one metric by corruption and severity with its means; '-' if missing."""
    cells = {(name, severity): _get_value(table, metric, name, severity, variant)
             for name in corruptions for severity in severities}
    rows = [[metric, *map(str, severities), 'mean']]
    if (CLEAN, metric) in table:
        rows.append(['clean', *[''] * len(severities), format_number(table[CLEAN, metric])])
    for name in corruptions:
        row = [cells[name, severity] for severity in severities]
        rows.append([name, *map(format_number, [*row, average_or_none(row)])])
    if len(corruptions) > 1:
        columns = [[cells[name, severity] for name in corruptions] for severity in severities]
        rows.append(['mean',
                     *map(format_number, [*map(average_or_none, columns), average_or_none(list(cells.values()))])])
    return align_columns(rows)


def format_summary(table: Table, corruptions: Sequence[str], severities: Sequence[int], **variant: Value) -> str:
    """Return P, mPC and rPC of every metric; without corruptions P alone.

    A sentence reports missing measurements instead. Means over a subset of the conditions follow.
    """
    metrics, lines = list_measured_metrics(table), []
    if not corruptions:
        return align_columns([['', 'P'], *([metric, format_number(table[CLEAN, metric])] for metric in metrics)])
    try:
        summary = summarize(table, **variant)
        names = ('P', 'mPC', 'rPC')
        lines = [align_columns([['', *names],
                                *([metric, *(format_number(summary.get(f'{name}({metric})')) for name in names)]
                                                for metric in metrics)])]
    except MissingMeasurement as missing:
        lines = [f'no mPC: {missing.args[0]}']
    chosen = len(corruptions) * len(severities)
    if set(corruptions) != set(CORRUPTIONS) or set(severities) != set(SEVERITIES):
        means = [compute_mpc(table, metric, corruptions, severities, **variant)
                 for metric in metrics]
        lines.append(align_columns([['', 'P', f'mean of the {chosen} above'],
                                    *([metric, format_number(table[CLEAN, metric]), format_number(mean)]
                                      for metric, mean in zip(metrics, means, strict=True))]))
    return '\n'.join(lines)


def format_json(table: Table, **variant: Value) -> str:
    """Return {'model', 'dataset', 'summary', 'records'}; the summary is null if a measurement is missing."""
    try:
        summary = summarize(table, **variant)
    except MissingMeasurement:
        summary = None
    return json.dumps({'model': table.model, 'dataset': table.dataset, 'summary': summary,
                       'records': [make_row(record) for record in table.records]}, indent=1) + '\n'


def _get_value(table: Table, metric: str, name: str, severity: int, variant: dict[str, Value]) -> float | None:
    key = make_condition(name, severity, **variant), metric
    return table[key] if key in table else None


BENCHMARKS.register('coco_c')(
    Benchmark('coco_c', dataset='coco', conditions=list_conditions(), metrics=METRICS[:6], summarize=summarize))
