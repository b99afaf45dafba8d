"""The errors of a model on shifted data sets as text, CSV and JSON."""

import json
from collections.abc import Sequence

from ..core.records import MissingMeasurement, Record
from . import shifts
from .base import wilson
from .shifts import IMAGENET, Place, Tables
from .tables import aligned, csv_of, number, row


def as_text(tables: Tables, names: Sequence[str]) -> str:
    """A line for ImageNet, where it was measured, and for every shift: error, its interval, clean error, gap.

    Where timm publishes errors of the same weights, they stand in a last column. '-' is what was not measured.
    """
    known = shifts.published(next(iter(tables.values())).model)
    shown = [IMAGENET, *names] if IMAGENET in tables and len(tables[IMAGENET]) else names
    rows = [['top-1 error', 'images', 'error', '95 %', 'clean', 'gap', *(['timm'] if known else [])]]
    for name in shown:
        record = shifts.record_at(tables, shifts.place_of(name))
        clean = _clean(tables, name)
        low, high = wilson(record.value, record.count)
        cells = [str(record.count), number(record.value), f'{number(low)} to {number(high)}']
        if shifts.clean_of(name):
            cells += [number(clean and clean.value), number(None if clean is None else record.value - clean.value)]
        rows.append([name, *cells, *[''] * (5 - len(cells)), *([number(known.get(name))] if known else [])])
    return aligned(rows)


def summary_text(tables: Tables, names: Sequence[str]) -> str:
    """The BG-gap where its two sides are measured, and a sentence for every gap that lacks its clean error."""
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
    """One line for every record; low and high are the ends of the 95 % interval (Wilson)."""
    return csv_of(_records(tables))


def as_json(tables: Tables, names: Sequence[str]) -> str:
    """{'model', 'summary', 'intervals', 'records'}; summary and intervals are null over a gap."""
    try:
        summary, intervals = shifts.summarise(tables, names), shifts.intervals(tables, names)
    except MissingMeasurement:
        summary = intervals = None
    return json.dumps({'model': next(iter(tables.values())).model, 'summary': summary, 'intervals': intervals,
                       'records': list(map(row, _records(tables)))}, indent=1) + '\n'


def _records(tables: Tables) -> list[Record]:
    return [record for table in tables.values() for record in table.records]


def _clean(tables: Tables, name: str) -> Record | None:
    place: Place | None = shifts.clean_of(name)
    try:
        return place and shifts.record_at(tables, place)
    except MissingMeasurement:
        return None
