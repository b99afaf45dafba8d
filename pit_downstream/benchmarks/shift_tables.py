"""Errors of a model on shifted datasets as text, CSV and JSON."""

import json
from collections.abc import Sequence

from pit_downstream.results.records import MissingMeasurement, Record
from pit_downstream.benchmarks import shifts
from pit_downstream.benchmarks.base import wilson
from pit_downstream.benchmarks.shifts import Tables
from pit_downstream.benchmarks.tables import aligned, csv_of, number, record_row


def as_text(tables: Tables, names: Sequence[str]) -> str:
    """Return a line for the clean images, if any, and for every shift: error, its interval, clean error, gap.

    Errors that timm publishes for the same weights are in a last column. '-' marks a missing measurement.
    """
    known = shifts.published(next(iter(tables.values())).model)
    rows = [['top-1 error', 'images', 'error', '95 %', 'clean', 'gap', 'timm']]
    for name in [*shifts.clean_names(tables), *names]:
        record = shifts.record_at(tables, shifts.place_of(name))
        interval = ' to '.join(map(number, wilson(record.value, record.count)))
        rows.append([name, str(record.count), number(record.value), interval,
                     *_clean_and_gap(tables, name, record), number(known.get(name))])
    return aligned(rows if known else [cells[:-1] for cells in rows])


def summary_text(tables: Tables, names: Sequence[str]) -> str:
    """Return the BG-gap if both sides are measured, and a sentence for every gap without its clean error."""
    lines = []
    if {shifts.SAME, shifts.RANDOM} <= set(names):
        value, (low, high) = shifts.bg_gap(tables)
        lines = [f'BG-gap  {number(value)}  (95 %: {number(low)} to {number(high)})']
    missing: dict[str, list[str]] = {}
    for name in names:
        try:
            if shifts.clean_of(name):
                shifts.gap(tables, name)
        except MissingMeasurement as absent:
            missing.setdefault(absent.args[0], []).append(name)
    return '\n'.join([*lines, *(f'no gap of {", ".join(these)}: {sentence}' for sentence, these in missing.items())])


def as_csv(tables: Tables) -> str:
    """Return one line per record; low and high are the ends of the 95 % interval (Wilson)."""
    return csv_of(_records(tables))


def as_json(tables: Tables, names: Sequence[str]) -> str:
    """Return {'model', 'summary', 'intervals', 'records'}; summary and intervals are null over a gap."""
    summary: dict[str, float] | None
    intervals: dict[str, tuple[float, float]] | None
    try:
        summary, intervals = shifts.summarise(tables, names), shifts.intervals(tables, names)
    except MissingMeasurement:
        summary = intervals = None
    return json.dumps({'model': next(iter(tables.values())).model, 'summary': summary, 'intervals': intervals,
                       'records': list(map(record_row, _records(tables)))}, indent=1) + '\n'


def _records(tables: Tables) -> list[Record]:
    """Return each record once: 'imagenet' and 'clean' may be the same table."""
    return list(dict.fromkeys(record for table in tables.values() for record in table.records))


def _clean_and_gap(tables: Tables, name: str, record: Record) -> tuple[str, str]:
    """Return clean error and gap: '' without matching clean images, '-' if they were not measured."""
    place = shifts.clean_of(name, tables)
    if place is None:
        return '', ''
    try:
        clean = shifts.record_at(tables, place).value
    except MissingMeasurement:
        return number(None), number(None)
    return number(clean), number(record.value - clean)
