"""Results of a corruption benchmark as text, CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence

from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.records import CONTENT, MissingMeasurement, Record, Table
from pit_downstream.utils.spec import Spec, Value
from pit_downstream.benchmarks import imagenet_c
from pit_downstream.benchmarks.base import wilson
from pit_downstream.benchmarks.imagenet_c import ERROR, SEVERITIES

_COLUMNS = ('model', 'dataset', 'condition', 'corruption', 'severity', 'metric', 'value', 'low', 'high', 'count',
            'seed')


def as_text(table: Table, corruptions: Sequence[str], severities: Sequence[int], **variant: Value) -> str:
    """Return top-1 errors by corruption and severity with their mean and, on ImageNet, CE; '-' if missing."""
    rows = [['top-1 error', *map(str, severities), 'mean', 'CE']]
    if (CLEAN, ERROR) in table:
        rows.append(['clean', *[''] * len(severities), number(table[CLEAN, ERROR]), ''])
    for name in corruptions:
        errors = [_error(table, name, severity, variant) for severity in severities]
        rows.append([name, *map(number, [*errors, whole_mean(errors), _ce(table, name, variant)])])
    return aligned(rows if imagenet_c.has_alexnet(table.dataset) else [row[:-1] for row in rows])


def images_text(table: Table) -> str:
    """Return the number of images behind a table: '40 images', '38 to 40 images'."""
    counts = sorted({record.count for record in table.records})
    return f'{" to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))} image{"s" * (counts[-1] != 1)}'


def whole_mean(values: Sequence[float | None]) -> float | None:
    """Return the mean, or None if a value is missing."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return lines with the first column left-aligned and the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join('  '.join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in
                                                         zip(cells, widths[1:], strict=True))]).rstrip()
                     for first, *cells in rows)


def summary_text(table: Table, corruptions: Sequence[str], severities: Sequence[int], *, run: str | None = None,
                 **variant: Value) -> str:
    """Return mCE, relative mCE and mean accuracies with 95 % intervals; no mCE on images other than ImageNet's.

    A sentence reports missing measurements instead. The mean accuracy over a subset of the conditions follows. A set
    without AlexNet's errors (ImageNet-C-bar, 3DCC) has only that mean. run: the command that measured the table.
    """
    lines = []
    summary: dict[str, float] | None
    intervals: dict[str, tuple[float, float]] | None
    try:
        summary, intervals = imagenet_c.summarise(table, **variant), imagenet_c.intervals(table, **variant)
        shown = {name: name.replace('_', ' ') for name in ('mCE', 'relative_mCE', 'mean_accuracy')}
        shown |= {f'mean_accuracy(severity={severity})': f'at severity {severity}' for severity in SEVERITIES}
        lines = [_line(title, summary[name], intervals[name]) for name, title in shown.items() if name in summary]
        if not imagenet_c.has_alexnet(table.dataset):
            spec = Spec.parse(table.dataset)
            lines.append("no CE and mCE: AlexNet's errors are those on ImageNet, not on "
                         f'{spec.get("root") or spec.name}')
        elif 'relative_mCE' not in summary:
            lines.append(f'no relative mCE: {MissingMeasurement(table, [(CLEAN, ERROR)]).args[0]}')
    except MissingMeasurement as missing:
        if set(corruptions) & set(imagenet_c.CORRUPTIONS):
            command = imagenet_c.command(table, missing.keys, run=run)
            absent = 'mCE' if imagenet_c.has_alexnet(table.dataset) else 'mean accuracy of all 75'
            lines = [f'no {absent}: {MissingMeasurement(table, missing.keys, command).args[0]}']
    if not _whole(corruptions, severities):
        mean, interval = _chosen(table, corruptions, severities, variant)
        lines.append(_line(f'mean accuracy of the {len(corruptions) * len(severities)} above', mean, interval))
    return '\n'.join(lines)


def as_csv(table: Table) -> str:
    """Return one line per record; low and high are the ends of the 95 % interval (Wilson) of an error."""
    return csv_of(table.records)


def csv_of(records: Iterable[Record]) -> str:
    """Return the CSV of as_csv() for records of any number of tables."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(record_row(record) for record in records if record.metric != CONTENT)
    return out.getvalue()


def as_json(table: Table, corruptions: Sequence[str], severities: Sequence[int], **variant: Value) -> str:
    """Return {'model', 'dataset', 'summary', 'intervals', 'chosen', 'records'}.

    summary, intervals: null if a measurement is missing. chosen: the mean accuracy over these corruptions and
    severities, with its interval.
    """
    summary: dict[str, float] | None
    intervals: dict[str, tuple[float, float]] | None
    try:
        summary, intervals = imagenet_c.summarise(table, **variant), imagenet_c.intervals(table, **variant)
    except MissingMeasurement:
        summary = intervals = None
    mean, interval = _chosen(table, corruptions, severities, variant)
    chosen = {'corruptions': list(corruptions), 'severities': list(severities), 'mean_accuracy': mean,
              'interval': interval}
    rows = [record_row(record) for record in table.records if record.metric != CONTENT]
    return json.dumps({'model': table.model, 'dataset': table.dataset, 'summary': summary, 'intervals': intervals,
                       'chosen': chosen, 'records': rows}, indent=1) + '\n'


def record_row(record: Record) -> dict:
    """Return the columns of a record in CSV and JSON; low and high are the ends of an error's 95 % interval."""
    corruption = Condition.parse(record.condition).corruption
    name, severity = (corruption.name, corruption.get('severity')) if corruption else ('', '')
    low, high = wilson(record.value, record.count) if record.metric.endswith('_error') else ('', '')
    return {'model': record.model, 'dataset': record.dataset, 'condition': record.condition, 'corruption': name,
            'severity': severity, 'metric': record.metric, 'value': record.value, 'low': low, 'high': high,
            'count': record.count, 'seed': record.seed}


def _line(name: str, value: float, interval: tuple[float, float]) -> str:
    return f'{name:13}  {number(value)}  (95 %: {number(interval[0])} to {number(interval[1])})'


def _whole(corruptions: Sequence[str], severities: Sequence[int]) -> bool:
    return set(corruptions) == set(imagenet_c.CORRUPTIONS) and set(severities) == set(SEVERITIES)


def _chosen(table: Table, corruptions: Sequence[str], severities: Sequence[int], variant: dict[str, Value]
            ) -> tuple[float, tuple[float, float]]:
    """Return the mean accuracy over corruptions and severities, and its interval."""
    accuracies = [imagenet_c.mean_accuracy(table, severity, corruptions, **variant) for severity in severities]
    return (math.fsum(accuracies) / len(accuracies),
            imagenet_c.mean_interval(table, corruptions, severities, **variant))


def _error(table: Table, name: str, severity: int, variant: dict[str, Value]) -> float | None:
    key = imagenet_c.condition(name, severity, **variant), ERROR
    return table[key] if key in table else None


def _ce(table: Table, name: str, variant: dict[str, Value]) -> float | None:
    try:
        return imagenet_c.corruption_error(table, name, **variant)
    except LookupError:  # a severity is missing, or AlexNet's error is unknown
        return None


def number(value: float | None) -> str:
    return '-' if value is None else f'{round(value, 4) + 0:.4f}'  # no -0.0000
