"""Report section on attention collapse: similarity of every pair of blocks, and every measure by depth."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pit_downstream.results.condition import CLEAN
from pit_downstream.utils.registry import SECTIONS
from pit_downstream.report import plots as charts
from pit_downstream.report.commands import attention_command
from pit_downstream.report.grids import lacking
from pit_downstream.report.measured import Group, Measured, ModelResults, sources
from pit_downstream.report.parts import Figure, Gap, Heading, Part, Section, Sheet, number, percent, slug, words

KINDS = {'softmax': 'softmax', 'reattention': 'Re-attention'}
PROFILE = {  # measures of metrics.attention.AttentionCollapse and their titles in figures
    '{kind}_similarity': 'similarity to the block before',
    '{kind}_head_similarity': 'similarity among heads',
    '{kind}_rank': 'effective rank of the maps',
    'softmax_entropy': 'attention entropy, nats',
    'softmax_distance': 'attention distance, patches',
    'token_similarity': 'similarity among patch tokens',
    'token_rank': 'effective rank of the patch tokens',
}


@SECTIONS.register('collapse')
def collapse_section(measured: Measured) -> Section:
    """Build the section with heat maps, profiles, and the number of similar blocks."""
    parts: list[Part] = []
    for group in measured.groups(_traced):
        parts.append(Heading(group.name))
        parts += [figure for one in group.ones for figure in _similarities(one, group.short)]
        parts += _profiles(measured, group)
        parts.append(_counts(group))
    gaps = [Gap(f'{one.label}: no measures of its attention', attention_command(measured.kept, one.model))
            for one in lacking(measured, lambda one: one.classifies, _traced)]
    lead = ('Cross-layer similarity: the cosine between the attention maps of two blocks, mean over heads, tokens and '
            'images (Zhou et al. 2021). Attention collapses where it tends to 1 with depth. Measured on clean images.')
    return Section('collapse', 'Attention collapse', lead, tuple(parts), tuple(gaps))


def _traced(one: ModelResults) -> bool:
    return any(metric.endswith('_similarity') for metric in one.metrics)


@dataclass(frozen=True)
class _Layer:
    """Position of a block: 'stage2.block4' in a PiT, 'block4' in other models. `order` sorts by depth."""

    stage: int
    block: int

    @classmethod
    def of(cls, text: str) -> '_Layer':
        stage, _, block = text.rpartition('.')
        return cls(int(stage.removeprefix('stage') or 0), int(block.removeprefix('block')))

    @property
    def short(self) -> str:
        return f'{self.stage}.{self.block}' if self.stage else str(self.block)

    @property
    def order(self) -> tuple[int, int]:
        return self.stage, self.block


def _values(one: ModelResults, metric: str) -> dict[str, float]:
    """Return the values of one metric by position."""
    return {record.layer: record.value for record in one.table.records
            if (record.metric, record.condition) == (metric, str(CLEAN))}


def _pairs(one: ModelResults, kind: str) -> dict[tuple[_Layer, _Layer], float]:
    return {(_Layer.of(first), _Layer.of(second)): value
            for (first, colon, second), value in ((layer.partition(':'), value) for layer, value in
                                                  _values(one, f'{kind}_similarity').items()) if colon}


def _similarities(one: ModelResults, short: str) -> Iterable[Figure]:
    """Yield a heat map per map type. Blocks of different stages have maps of different size, and no similarity."""
    for kind, said in KINDS.items():
        pairs = _pairs(one, kind)
        layers = sorted({layer for pair in pairs for layer in pair}, key=lambda layer: layer.order)
        index = {layer: at for at, layer in enumerate(layers)}
        cells = {(at, at): 1. for at in index.values()}
        for (first, second), value in pairs.items():
            cells[index[first], index[second]] = cells[index[second], index[first]] = value
        if pairs:
            names = [layer.short for layer in layers]
            drawing = charts.heat_map(f'{one.label}, {said}', names, names, cells, shown=False, xlabel='block',
                                      ylabel='block')
            points = tuple({'model': one.label, 'maps': kind, 'block': first.short, 'other': second.short,
                            'value': value} for (first, second), value in pairs.items())
            negative = '; orange is below zero' if min(pairs.values()) < 0 else ''
            apart = '; no color: blocks of different stages' if any(layer.stage for layer in layers) else ''
            yield Figure(f'similarity{short}_{slug(one.label)}_{kind}', f'{one.label}: similarity of the {said} maps '
                         'of each two blocks, the deeper the color the nearer to 1'
                         f'{negative}{apart}. {sources([one])}', drawing, points)


def _by_depth(one: ModelResults, metric: str, kind: str) -> dict[int, float]:
    """Return the values by block number, counted through all stages from 1."""
    layers = sorted(map(_Layer.of, _values(one, 'softmax_entropy')), key=lambda layer: layer.order)
    depth = {layer: at for at, layer in enumerate(layers, 1)}
    if metric == '{kind}_similarity':
        return {depth[second]: value for (first, second), value in _pairs(one, kind).items()
                if (first.stage, first.block + 1) == second.order and second in depth}
    found = {_Layer.of(layer): value for layer, value in _values(one, metric.format(kind=kind)).items()}
    return {depth[layer]: value for layer, value in found.items() if layer in depth}


def _profiles(measured: Measured, group: Group) -> Iterable[Figure]:
    """Yield a panel per measure and map type, with a line per model."""
    index = 0
    for metric, said in PROFILE.items():
        for kind, named in KINDS.items() if '{kind}' in metric else [('softmax', '')]:
            series = {one: depths for one in group.ones if (depths := _by_depth(one, metric, kind))}
            if not series:
                continue
            index += 1
            title = said + (f', {named}' if named else '')
            drawn = {one.label: _line(one, depths) for one, depths in series.items()}
            drawing = charts.curves(title, drawn, measured.numbers, xlabel='block', ylabel='', unit=False)
            points = tuple({'model': one.label, 'measure': metric.format(kind=kind), 'block': at, 'value': value}
                           for one, depths in series.items() for at, value in depths.items())
            yield Figure(f'profile{group.short}_{index}', f'{title[0].upper()}{title[1:]}, by depth, on {group.name}; '
                         f'blocks are counted through all stages. {sources(list(series))}', drawing, points)


def _line(one: ModelResults, depths: Mapping[int, float]) -> list[tuple[float, float, None, None]]:
    """Return the points of a line, with a break between stages."""
    layers = sorted(map(_Layer.of, _values(one, 'softmax_entropy')), key=lambda layer: layer.order)
    first = [at for at, layer in enumerate(layers, 1) if at > 1 and layer.stage != layers[at - 2].stage]
    broken = {at - .5: math.nan for at in first}
    return [(at, value, None, None) for at, value in sorted((broken | dict(depths)).items())]


def _counts(group: Group) -> Sheet:
    """Build a table of how many blocks are similar to the previous block."""
    rows = []
    for one in group.ones:
        for record in one.table.records:
            kind, mark, rest = record.metric.partition('_similar_blocks')
            if mark:
                ratio = record.condition, f'{kind}_similar_ratio{rest}', record.layer
                rows.append((one.cell, words(KINDS.get(kind, kind)), words(record.layer or 'all'),
                             words(rest.strip('()').partition('=')[2]), number(record.value),
                             percent(one.table[ratio] if ratio in one.table else None)))
    caption = (f'Blocks whose maps are more similar to those of the block before than the threshold, on {group.name}. '
               f'{sources(group.ones)}')
    columns = ('model', 'maps', 'stage', 'threshold', 'similar blocks', 'of all, %')
    return Sheet(f'similar_blocks{group.short}', caption, columns, tuple(rows))
