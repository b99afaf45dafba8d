"""Attention collapse of a classifier: similarity of blocks and heads, entropy, distance and rank, per layer."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pit_downstream.benchmarks.base import Benchmark, describe_missing
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.intervals import Estimate
from pit_downstream.results.layout import Layout
from pit_downstream.results.results import Gap
from pit_downstream.results.tables import Sheet, number, rate, words
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Spec

if TYPE_CHECKING:
    from pit_downstream.results.results import Results

KINDS = {'softmax': 'softmax', 'reattention': 'Re-attention'}


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
