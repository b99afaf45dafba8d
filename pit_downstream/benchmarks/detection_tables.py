"""COCO-C results as text and JSON; the CSV is the same as for any corruption benchmark."""

import json
from collections.abc import Sequence

from pit_downstream.results.condition import CLEAN
from pit_downstream.results.records import MissingMeasurement, Table
from pit_downstream.utils.spec import Value
from pit_downstream.benchmarks import coco_c
from pit_downstream.benchmarks.tables import aligned, number, record_row, whole_mean


def as_text(table: Table, metric: str, corruptions: Sequence[str], severities: Sequence[int], **variant: Value) -> str:
    """Return one metric by corruption and severity with its means; '-' if missing."""
    cells = {(name, severity): _cell(table, metric, name, severity, variant)
             for name in corruptions for severity in severities}
    rows = [[metric, *map(str, severities), 'mean']]
    if (CLEAN, metric) in table:
        rows.append(['clean', *[''] * len(severities), number(table[CLEAN, metric])])
    for name in corruptions:
        row = [cells[name, severity] for severity in severities]
        rows.append([name, *map(number, [*row, whole_mean(row)])])
    if len(corruptions) > 1:
        columns = [[cells[name, severity] for name in corruptions] for severity in severities]
        rows.append(['mean', *map(number, [*map(whole_mean, columns), whole_mean(list(cells.values()))])])
    return aligned(rows)


def summary_text(table: Table, corruptions: Sequence[str], severities: Sequence[int], **variant: Value) -> str:
    """Return P, mPC and rPC of every metric; without corruptions P alone.

    A sentence reports missing measurements instead. Means over a subset of the conditions follow.
    """
    metrics, lines = coco_c.measured(table), []
    if not corruptions:
        return aligned([['', 'P'], *([metric, number(table[CLEAN, metric])] for metric in metrics)])
    try:
        summary = coco_c.summarise(table, **variant)
        names = ('P', 'mPC', 'rPC')
        lines = [aligned([['', *names], *([metric, *(number(summary.get(f'{name}({metric})')) for name in names)]
                                          for metric in metrics)])]
    except MissingMeasurement as missing:
        lines = [f'no mPC: {missing.args[0]}']
    chosen = len(corruptions) * len(severities)
    if set(corruptions) != set(coco_c.CORRUPTIONS) or set(severities) != set(coco_c.SEVERITIES):
        means = [coco_c.performance_under_corruption(table, metric, corruptions, severities, **variant)
                 for metric in metrics]
        lines.append(aligned([['', 'P', f'mean of the {chosen} above'],
                              *([metric, number(table[CLEAN, metric]), number(mean)]
                                for metric, mean in zip(metrics, means, strict=True))]))
    return '\n'.join(lines)


def as_json(table: Table, **variant: Value) -> str:
    """Return {'model', 'dataset', 'summary', 'records'}; the summary is null if a measurement is missing."""
    try:
        summary = coco_c.summarise(table, **variant)
    except MissingMeasurement:
        summary = None
    return json.dumps({'model': table.model, 'dataset': table.dataset, 'summary': summary,
                       'records': [record_row(record) for record in table.records]}, indent=1) + '\n'


def _cell(table: Table, metric: str, name: str, severity: int, variant: dict[str, Value]) -> float | None:
    key = coco_c.condition(name, severity, **variant), metric
    return table[key] if key in table else None
