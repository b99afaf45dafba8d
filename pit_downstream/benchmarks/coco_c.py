"""COCO-C, the Robust Detection Benchmark (Michaelis et al. 2019, 1907.07484): AP under corruptions, mPC and rPC."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pit_downstream.benchmarks.base import Benchmark, describe_missing
from pit_downstream.benchmarks.imagenet_c import (
    CORRUPTIONS,
    SEVERITIES,
    check_severities,
    choose_corruption_flags,
    list_conditions,
    make_condition,
)
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.intervals import Estimate
from pit_downstream.results.layout import Layout, make_sheet
from pit_downstream.results.records import MissingMeasurement, Table
from pit_downstream.results.results import Gap
from pit_downstream.results.tables import Sheet, rate, words
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Value

if TYPE_CHECKING:
    from pit_downstream.results.results import Results

# Of boxes, of masks; the dataset and the detector determine which are available
METRICS = tuple(f'{kind}{name}' for kind in ('', 'mask_') for name in
                ('AP', 'AP50', 'AP75', 'AP_small', 'AP_medium', 'AP_large'))
MAIN = ('AP', 'mask_AP')


@BENCHMARKS.register('coco_c')
@dataclass(frozen=True)
class CocoC(Benchmark):
    """AP under corruptions at several severities: P on clean images, mPC, and rPC = mPC / P.

    Attributes:
        corruptions: Names of corruptions, () for clean images alone.
        severities: Severities in 1..5.
        bgr: Corrupt images in BGR order, as mmdet's robustness script does.
    """

    name = 'coco_c'
    title = 'COCO-C'
    about = ('AP in percent under fifteen corruptions at five severities (Michaelis et al. 2019). P is AP on clean '
             'images, mPC the mean over all 75, rPC = mPC / P.')
    tasks = ('detector',)
    layout = Layout(rows='corruption', columns='severity', value='AP', mean_row=True)

    corruptions: tuple[str, ...] = field(default=CORRUPTIONS, metadata={
        'help': 'names of corruptions, benchmark (the 15), extra (the 4 hold-out corruptions), all, or none',
        'default': 'benchmark', 'metavar': 'NAME'})
    severities: tuple[int, ...] = field(default=SEVERITIES, metadata={'help': 'severities', 'metavar': '1..5'})
    bgr: bool = field(default=False, metadata={
        'help': "corrupt images in BGR order, as mmdet's robustness script does; recorded with the results"})

    def __post_init__(self) -> None:
        check_severities(self.severities)

    @property
    def arguments(self) -> dict[str, Value]:
        """Arguments of every corruption besides the severity."""
        return {'order': 'bgr'} if self.bgr else {}

    def conditions(self) -> tuple[Condition, ...]:
        return list_conditions(self.corruptions, self.severities, **self.arguments)

    def required(self) -> tuple[tuple[Condition, str], ...]:
        """Return what mPC needs: all severities of the 15 corruptions, if one of these is selected."""
        if not set(self.corruptions) & set(CORRUPTIONS):
            return super().required()
        return tuple((condition, 'AP') for condition in list_conditions(**self.arguments))

    def summarize(self, results: 'Results') -> dict[str, Estimate]:
        """Return P, mPC, rPC, and mPC per corruption and per severity, for each metric, in fractions.

        Keys are like 'mPC(AP)', 'mPC(AP, fog)', 'mPC(AP, severity=3)'. If P is 0, rPC is omitted. Raises
        MissingMeasurement with every missing condition.
        """
        return summarize(results.table, **self.arguments)

    def tabulate(self, results: 'Results') -> list[Sheet]:
        names = list_measured_metrics(results.table)
        shown = [name for name in names if name in MAIN] or list(names[:1])
        return [*([make_sheet(self.name, results, self.layout, name) for name in shown] if self.corruptions else []),
                *self.tabulate_summary(results)]

    def select_headline(self, results: 'Results') -> dict[str, Estimate]:
        """Return P, mPC and rPC of AP, {} over a gap."""
        try:
            summary = self.summarize(results)
        except MissingMeasurement:
            return {}
        names = [f'{name}({metric})' for metric in MAIN for name in ('P', 'mPC', 'rPC')]
        return {name: summary[name] for name in names if name in summary}

    def tabulate_summary(self, results: 'Results') -> list[Sheet]:
        table, metrics = results.table, list_measured_metrics(results.table)
        chosen = [(condition, metric) for metric in metrics for condition in self.conditions()[1:]]
        is_complete = not self._find_missing(table)
        is_subset = bool(chosen) and (set(self.corruptions), set(self.severities)) != (set(CORRUPTIONS),
                                                                                      set(SEVERITIES))
        summary = self.summarize(results) if is_complete else {}
        rows = []
        for metric in metrics:
            row = [words(metric), rate(table[CLEAN, metric] if (CLEAN, metric) in table else None)]
            if is_complete:
                row += [rate(summary.get(f'{name}({metric})')) for name in ('mPC', 'rPC')]
            if is_subset:
                keys = [key for key in chosen if key[1] == metric]
                row.append(rate(math.fsum(table[key] for key in keys) / len(keys) if all(
                    key in table for key in keys) else None))
            rows.append(tuple(row))
        columns = ('metric', 'P', *(('mPC', 'rPC') if is_complete else ()), *(
            (f'mean of the {len(chosen) // len(metrics)} above',) if is_subset else ()))
        caption = (f'{self.title}: {results.subject}, in percent. P: clean; mPC: mean over 75 '
                   'corrupted conditions; rPC = mPC / P.')
        return [Sheet(f'{self.name}_summary', caption, columns, tuple(rows))]

    def find_gaps(self, results: 'Results') -> list[Gap]:
        """Return what prevents an mPC, in one line, and what else was not measured."""
        metrics, gaps = list_measured_metrics(results.table), []
        absent = self._find_missing(results.table) if set(self.corruptions) & set(CORRUPTIONS) else []
        if absent:
            gaps.append(Gap(f'no mPC: {describe_missing(absent)} not measured', self.build_command(results, absent)))
        others = [condition for condition in self.conditions() if condition not in absent
                  and any((condition, metric) not in results.table for metric in metrics)]
        if others:
            gaps.append(Gap(f'{describe_missing(others)} not measured', self.build_command(results, others)))
        return gaps

    def choose_flags(self, conditions: Iterable[Condition]) -> Mapping[str, Sequence[str]]:
        return choose_corruption_flags(conditions)

    @property
    def tool(self) -> str:
        return 'eval-coco-c'

    def _find_missing(self, table: Table) -> list[Condition]:
        metrics = list_measured_metrics(table)
        return [condition for condition in list_conditions(**self.arguments)
                if any((condition, metric) not in table for metric in metrics)]


def list_measured_metrics(table: Table) -> tuple[str, ...]:
    """Return the metrics with a record in `table`, in the order of METRICS; AP for an empty table."""
    measured = {record.metric for record in table.records}
    return tuple(metric for metric in METRICS if metric in measured) or METRICS[:1]


def compute_mpc(table: Table, metric: str, corruptions: Iterable[str] = CORRUPTIONS,
                severities: Iterable[int] = SEVERITIES, /, **arguments: Value) -> float:
    """Compute the mean of `metric` over corruptions and severities; mPC by default."""
    keys = [(make_condition(name, severity, **arguments), metric) for name in corruptions for severity in severities]
    table.require(keys)
    return math.fsum(table[key] for key in keys) / len(keys)


def summarize(table: Table, **arguments: Value) -> dict[str, Estimate]:
    """Return the summary of a table, see CocoC.summarize."""
    metrics = list_measured_metrics(table)
    table.require([(condition, metric) for metric in metrics for condition in list_conditions(**arguments)])
    summary: dict[str, float] = {}
    for metric in metrics:
        clean, mean = table[CLEAN, metric], compute_mpc(table, metric, **arguments)
        summary |= {f'P({metric})': clean, f'mPC({metric})': mean}
        summary |= {f'rPC({metric})': mean / clean} if clean else {}
        summary |= {f'mPC({metric}, {name})': compute_mpc(table, metric, [name], **arguments) for name in CORRUPTIONS}
        summary |= {f'mPC({metric}, severity={severity})': compute_mpc(
            table, metric, CORRUPTIONS, [severity], **arguments) for severity in SEVERITIES}
    return {name: Estimate(value) for name, value in summary.items()}
