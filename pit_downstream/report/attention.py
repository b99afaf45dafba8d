"""Figures of attention collapse: similarity of every pair of blocks, and every measure by depth."""

from collections.abc import Iterator, Mapping

from pit_downstream.benchmarks.attention import (
    KINDS,
    count_blocks,
    format_layer,
    get_records,
    list_profiles,
    make_line,
    parse_layer,
    select_metric,
)
from pit_downstream.results.records import Record
from pit_downstream.report import plots
from pit_downstream.report.data import Group, ReportData
from pit_downstream.report.models import ModelResults, format_sources
from pit_downstream.report.parts import Figure, make_slug


def draw_attention(data: ReportData, group: Group) -> Iterator[Figure]:
    """Yield heat maps of each model, and profiles by depth with a line per model, on clean images."""
    if group.suffix.count('threshold'):  # the figures are those of the first threshold
        return
    values = {entry: get_records(results.table) for entry, results in group.pairs}
    for entry, records in values.items():
        for kind in KINDS:
            if pairs := select_metric(records, f'{kind}_similarity'):
                yield _draw_similarity(entry, pairs, kind, f'similarity{group.suffix}')
    profiles = {entry: list_profiles(records) for entry, records in values.items()}
    titles = dict.fromkeys(title for by_title in profiles.values() for title in by_title)
    for index, title in enumerate(titles, 1):
        series = {entry: by_title[title] for entry, by_title in profiles.items() if title in by_title}
        lines = {entry.label: make_line(values[entry], {layer: record.value for layer, record in profile.items()})
                 for entry, profile in series.items()}
        drawn = {label: [(depth, value, None, None) for depth, value in line] for label, line in lines.items()}
        drawing = plots.curves(title, drawn, data.numbers, xlabel='block', ylabel='', unit=False)
        points = tuple({'model': entry.label, 'measure': record.metric, 'block': count_blocks(values[entry])[layer],
                        'value': record.value} for entry, profile in series.items()
                       for layer, record in profile.items())
        yield Figure(f'profile{group.suffix}_{index}', f'{title[0].upper()}{title[1:]}, by depth, on {group.name}; '
                     f'blocks are counted through all stages. {format_sources(list(series))}', drawing, points)


def _draw_similarity(entry: ModelResults, pairs: Mapping[str, Record], kind: str, name: str) -> Figure:
    """Draw the similarity of each two blocks. Blocks of different stages have maps of different size, and none."""
    layers = sorted({layer for pair in pairs for layer in pair.split(':')}, key=parse_layer)
    cells = {(index, index): 1. for index in range(len(layers))}
    for pair, record in pairs.items():
        row, column = map(layers.index, pair.split(':'))
        cells[row, column] = cells[column, row] = record.value
    names = list(map(format_layer, layers))
    drawing = plots.heat_map(f'{entry.label}, {KINDS[kind]}', names, names, cells, shown=False, xlabel='block',
                             ylabel='block')
    points = tuple({'model': entry.label, 'maps': kind, **dict(zip(
        ('block', 'other'), map(format_layer, pair.split(':')), strict=True)), 'value': record.value}
        for pair, record in pairs.items())
    negative = ', orange is below zero' if min(record.value for record in pairs.values()) < 0 else ''
    stages = '; no color: blocks of different stages' if '.' in layers[0] else ''
    return Figure(f'{name}_{make_slug(entry.label)}_{kind}', f'{entry.label}: similarity of the {KINDS[kind]} maps of '
                  f'each two blocks{negative}{stages}. {format_sources([entry])}', drawing, points)
