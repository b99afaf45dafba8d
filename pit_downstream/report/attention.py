"""Figures of attention collapse: similarity of every pair of blocks, and every measure by depth."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pit_downstream.benchmarks.attention import KINDS
from pit_downstream.results.condition import CLEAN
from pit_downstream.results.records import Record, Table
from pit_downstream.report import plots
from pit_downstream.report.data import Group, ReportData
from pit_downstream.report.models import ModelResults, format_sources
from pit_downstream.report.parts import Figure, make_slug

PROFILE = {  # measures of metrics.attention.AttentionCollapse and their titles
    '{kind}_similarity': 'similarity to the previous block', '{kind}_head_similarity': 'similarity among heads',
    '{kind}_rank': 'effective rank of the maps', 'softmax_entropy': 'attention entropy, nats',
    'softmax_distance': 'attention distance, patches', 'token_similarity': 'similarity among patch tokens',
    'token_rank': 'effective rank of the patch tokens'}


@dataclass(frozen=True, order=True)
class Layer:
    """Position of a block: 'stage2.block4' in a PiT, 'block4' in other models. Sorts by depth."""

    stage: int
    block: int

    @classmethod
    def parse(cls, text: str) -> 'Layer':
        stage, _, block = text.rpartition('.')
        return cls(int(stage.removeprefix('stage') or 0), int(block.removeprefix('block')))

    def __str__(self) -> str:
        return f'{self.stage}.{self.block}' if self.stage else str(self.block)


def draw_attention(data: ReportData, group: Group) -> Iterator[Figure]:
    """Yield heat maps of each model, and profiles by depth with a line per model, on clean images."""
    if group.suffix.count('threshold'):  # the figures are those of the first threshold
        return
    for entry, results in group.pairs:
        for kind, noun in KINDS.items():
            pairs = _get_pairs(results.table, kind)
            if pairs:
                yield _draw_similarity(entry, pairs, kind, noun, f'similarity{group.suffix}')
    for index, (title, series) in enumerate(_collect_profiles(group).items(), 1):
        drawn = {entry.label: _make_line(results.table, series[entry]) for entry, results in group.pairs
                 if entry in series}
        drawing = plots.curves(title, drawn, data.numbers, xlabel='block', ylabel='', unit=False)
        points = tuple({'model': entry.label, 'measure': record.metric, 'block': depth, 'value': record.value}
                       for entry, depths in series.items() for depth, record in depths.items())
        yield Figure(f'profile{group.suffix}_{index}', f'{title[0].upper()}{title[1:]}, by depth, on {group.name}; '
                     f'blocks are counted through all stages. {format_sources(list(series))}', drawing, points)


def list_profiles(table: Table) -> dict[str, dict[int, Record]]:
    """Return the records of each measure by depth: blocks are counted through all stages from 1."""
    layers = sorted({Layer.parse(record.layer) for record in _select(table, 'softmax_entropy')})
    depth = {layer: index for index, layer in enumerate(layers, 1)}
    profiles: dict[str, dict[int, Record]] = {}
    for metric, title in PROFILE.items():
        for kind, noun in KINDS.items() if '{kind}' in metric else [('softmax', '')]:
            if metric == '{kind}_similarity':
                records = {second: record for (first, second), record in _get_pairs(table, kind).items()
                           if (first.stage, first.block + 1) == (second.stage, second.block)}
            else:
                records = {Layer.parse(record.layer): record for record in _select(table, metric.format(kind=kind))}
            by_depth = {depth[layer]: record for layer, record in sorted(records.items()) if layer in depth}
            if by_depth:
                profiles[title + (f', {noun}' if noun else '')] = by_depth
    return profiles


def _collect_profiles(group: Group) -> dict[str, dict[ModelResults, dict[int, Record]]]:
    collected: dict[str, dict[ModelResults, dict[int, Record]]] = {}
    for entry, results in group.pairs:
        for title, by_depth in list_profiles(results.table).items():
            collected.setdefault(title, {})[entry] = by_depth
    return collected


def _select(table: Table, metric: str) -> list[Record]:
    return [record for record in table.records if record.metric == metric and record.condition == str(CLEAN)]


def _get_pairs(table: Table, kind: str) -> dict[tuple[Layer, Layer], Record]:
    pairs = {}
    for record in _select(table, f'{kind}_similarity'):
        first, colon, second = record.layer.partition(':')
        if colon:
            pairs[Layer.parse(first), Layer.parse(second)] = record
    return pairs


def _draw_similarity(entry: ModelResults, pairs: dict[tuple[Layer, Layer], Record], kind: str, noun: str,
                     name: str) -> Figure:
    """Draw the similarity of each two blocks. Blocks of different stages have maps of different size, and none."""
    layers = sorted({layer for pair in pairs for layer in pair})
    index = {layer: position for position, layer in enumerate(layers)}
    cells = {(position, position): 1. for position in index.values()}
    for (first, second), record in pairs.items():
        cells[index[first], index[second]] = cells[index[second], index[first]] = record.value
    names = list(map(str, layers))
    drawing = plots.heat_map(f'{entry.label}, {noun}', names, names, cells, shown=False, xlabel='block',
                             ylabel='block')
    points = tuple({'model': entry.label, 'maps': kind, 'block': str(first), 'other': str(second),
                    'value': record.value} for (first, second), record in pairs.items())
    negative = ', orange is below zero' if min(record.value for record in pairs.values()) < 0 else ''
    stages = '; no color: blocks of different stages' if any(layer.stage for layer in layers) else ''
    return Figure(f'{name}_{make_slug(entry.label)}_{kind}', f'{entry.label}: similarity of the {noun} maps of each '
                  f'two blocks{negative}{stages}. {format_sources([entry])}', drawing, points)


def _make_line(table: Table, depths: dict[int, Record]) -> list[tuple[float, float, None, None]]:
    """Return the points of a line, with a break between stages."""
    layers = sorted({Layer.parse(record.layer) for record in _select(table, 'softmax_entropy')})
    breaks = [depth for depth, layer in enumerate(layers, 1) if depth > 1 and layer.stage != layers[depth - 2].stage]
    values: dict[float, float] = {depth - .5: math.nan for depth in breaks}
    values |= {depth: record.value for depth, record in depths.items()}
    return [(depth, value, None, None) for depth, value in sorted(values.items())]
