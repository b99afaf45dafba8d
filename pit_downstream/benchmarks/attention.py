"""Attention collapse of a classifier: similarity of blocks and heads, entropy, distance and rank, per layer."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from pit_downstream.benchmarks.base import Benchmark, describe_missing
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.intervals import Estimate
from pit_downstream.results.layout import Layout
from pit_downstream.results.records import Record, Table
from pit_downstream.results.results import Gap
from pit_downstream.results.tables import Sheet, number, rate, words
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Spec

if TYPE_CHECKING:
    from pit_downstream.results.results import Results

KINDS = {'softmax': 'softmax', 'reattention': 'Re-attention'}
PROFILE = {  # measures of metrics.attention.AttentionCollapse and their titles; {kind} is a key of KINDS
    '{kind}_similarity': 'similarity to the previous block', '{kind}_head_similarity': 'similarity among heads',
    '{kind}_rank': 'effective rank of the maps', 'softmax_entropy': 'attention entropy, nats',
    'softmax_distance': 'attention distance, patches', 'token_similarity': 'similarity among patch tokens',
    'token_rank': 'effective rank of the patch tokens'}

T = TypeVar('T')  # number or Record


@BENCHMARKS.register('attention')
@dataclass(frozen=True)
class Attention(Benchmark):
    """Measures of attention collapse (metrics.attention), and the number of similar blocks.

    Attributes:
        threshold: Cosine above which two blocks are similar.
        corruptions: Corruptions with arguments, such as 'fog(severity=3)', under which attention is also measured.
    """

    name = 'attention'
    title = 'Attention collapse'
    about = ('Cross-layer similarity: the cosine between the attention maps of two blocks, mean over heads, tokens and '
             'images (Zhou et al. 2021). Attention collapses where it tends to 1 with depth.')
    layout = Layout(rows='condition', columns='layer', value='token_rank', mean=False)

    threshold: float = field(default=0.9, metadata={'help': 'cosine above which blocks are similar', 'metavar': 'X'})
    corruptions: tuple[str, ...] = field(default=(), metadata={
        'help': "also measure under these corruptions, such as 'fog(severity=3)'", 'metavar': 'CORRUPTION'})

    def conditions(self) -> tuple[Condition, ...]:
        return (CLEAN, *(Condition(Spec.parse(text)) for text in self.corruptions))

    def metric_names(self, task: str) -> tuple[str, ...]:
        return (f'attention(threshold={self.threshold})',)

    def summarize(self, results: 'Results') -> dict[str, Estimate]:
        """Return number and ratio of similar blocks by kind of maps and stage, on clean images."""
        return {f'{record.metric}{f"@{record.layer}" if record.layer else ""}': Estimate(record.value)
                for record in results.table.records if '_similar_' in record.metric and record.condition == str(CLEAN)}

    def select_headline(self, results: 'Results') -> dict[str, Estimate]:
        return self.summarize(results)

    def tabulate(self, results: 'Results') -> list[Sheet]:
        """Return the number of similar blocks of every condition, kind of maps and stage."""
        table, rows = results.table, []
        suffix = f'(threshold={self.threshold})'
        for record in table.records:
            kind, mark, rest = record.metric.partition('_similar_blocks')
            if mark and rest == suffix:
                ratio = table.record((record.condition, f'{kind}_similar_ratio{suffix}', record.layer))
                rows.append((words(record.condition), words(KINDS.get(kind, kind)), words(record.layer or 'all'),
                             number(record.value), rate(ratio.value)))
        caption = (f'Blocks whose attention maps have a cosine above {self.threshold} to those of the previous block: '
                   f'{results.subject}.')
        return [Sheet(self.name, caption, ('condition', 'maps', 'stage', 'similar blocks', 'of all'), tuple(rows))]

    def find_gaps(self, results: 'Results') -> list[Gap]:
        measured = {record.condition for record in results.table.records if record.metric == self.layout.value}
        absent = [condition for condition in self.conditions() if str(condition) not in measured]
        return [Gap(f'{describe_missing(absent)} not measured', self.build_command(results, absent))] if absent else []

    @property
    def tool(self) -> str:
        return 'analyze-attention'


def get_records(table: Table) -> dict[str, Record]:
    """Return the records of clean images by 'metric@layer'."""
    return {f'{record.metric}@{record.layer}': record for record in table.records
            if record.condition == str(CLEAN)}


def select_metric(values: Mapping[str, T], metric: str) -> dict[str, T]:
    """Return the values of one metric by layer or, for a similarity of two blocks, by 'block1:block2'."""
    named = (name.split('@') for name in values)
    return {layer: values[f'{name}@{layer}'] for name, layer in named if name == metric}


def get_neighbor_similarity(values: Mapping[str, T], kind: str) -> dict[str, T]:
    """Return the similarity of each block to the previous one, by layer. The first block of a stage has none."""
    pairs = {tuple(pair.split(':')): value for pair, value in select_metric(values, f'{kind}_similarity').items()}
    return {second: value for (first, second), value in pairs.items()
            if parse_layer(second) == (parse_layer(first)[0], parse_layer(first)[1] + 1)}


def get_profile(values: Mapping[str, T], metric: str, kind: str) -> dict[str, T]:
    """Return a measure of PROFILE by layer, in the order of depth."""
    by_layer = (get_neighbor_similarity(values, kind) if metric == '{kind}_similarity' else
                select_metric(values, metric.format(kind=kind)))
    return {layer: by_layer[layer] for layer in count_blocks(values) if layer in by_layer}


def list_profiles(values: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Return every available measure of PROFILE by title, and by kind of maps where it has several."""
    profiles = {title + (f', {noun}' if noun else ''): get_profile(values, metric, kind)
                for metric, title in PROFILE.items()
                for kind, noun in (KINDS.items() if '{kind}' in metric else [('softmax', '')])}
    return {title: profile for title, profile in profiles.items() if profile}


def count_blocks(values: Mapping[str, object]) -> dict[str, int]:
    """Return the depth of each layer, in this order: blocks are counted through all stages from 1."""
    layers = sorted(select_metric(values, 'softmax_entropy'), key=parse_layer)
    return {layer: depth for depth, layer in enumerate(layers, 1)}


def make_line(values: Mapping[str, object], profile: Mapping[str, float]) -> list[tuple[float, float]]:
    """Return a profile as points (depth, value), with nan between stages."""
    depths, stage = count_blocks(values), None
    line: list[tuple[float, float]] = []
    for layer, value in profile.items():
        if line and parse_layer(layer)[0] != stage:
            line.append((depths[layer] - .5, math.nan))
        stage = parse_layer(layer)[0]
        line.append((float(depths[layer]), value))
    return line


def parse_layer(layer: str) -> tuple[int, int]:
    """Return stage and block: (2, 4) for 'stage2.block4', (0, 4) for 'block4' of a model without stages."""
    stage, _, block = layer.rpartition('.')
    return int(stage.removeprefix('stage') or 0), int(block.removeprefix('block'))


def format_layer(layer: str) -> str:
    """Return '2.4' for 'stage2.block4', '4' for 'block4'."""
    return '.'.join(str(number) for number in parse_layer(layer) if number)
