"""Parts of the printed and exported tables that benchmarks share."""

import csv
import io
import math
from collections.abc import Iterable, Sequence

from pit_downstream.results.condition import Condition
from pit_downstream.results.records import Record, Table, is_content
from pit_downstream.benchmarks.base import compute_wilson_interval

_COLUMNS = ('model', 'dataset', 'condition', 'corruption', 'severity', 'metric', 'value', 'low', 'high', 'count',
            'seed')


def format_image_count(table: Table) -> str:
    """Return the number of images behind a table: '40 images', '38 to 40 images'."""
    counts = sorted({record.count for record in table.records})
    return f'{" to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))} image{"s" * (counts[-1] != 1)}'


def average_or_none(values: Sequence[float | None]) -> float | None:
    """Return the mean, or None if a value is missing."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def align_columns(rows: Sequence[Sequence[str]]) -> str:
    """Return lines with the first column left-aligned and the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join('  '.join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in
                                                         zip(cells, widths[1:], strict=True))]).rstrip()
                     for first, *cells in rows)


def format_records_csv(records: Iterable[Record]) -> str:
    """Return one line per record; low and high are the ends of the 95 % interval (Wilson) of an error."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(make_row(record) for record in records if not is_content(record))
    return out.getvalue()


def make_row(record: Record) -> dict:
    """Return the columns of a record in CSV and JSON; low and high are the ends of an error's 95 % interval."""
    corruption = Condition.parse(record.condition).corruption
    name, severity = (corruption.name, corruption.get('severity')) if corruption else ('', '')
    low, high = compute_wilson_interval(record.value, record.count) if record.metric.endswith('_error') else ('', '')
    return {'model': record.model, 'dataset': record.dataset, 'condition': record.condition, 'corruption': name,
            'severity': severity, 'metric': record.metric, 'value': record.value, 'low': low, 'high': high,
            'count': record.count, 'seed': record.seed}


def format_number(value: float | None) -> str:
    return '-' if value is None else f'{round(value, 4) + 0:.4f}'  # no -0.0000
