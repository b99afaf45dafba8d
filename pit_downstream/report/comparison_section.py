"""Report section on differences: two classifiers on the same images, and how much better one is."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pit_downstream.benchmarks import adversarial, imagenet_c
from pit_downstream.benchmarks.differences import Difference, compare_intervals, compare_paired
from pit_downstream.benchmarks.imagenet_c import ERROR, SEVERITIES
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.utils.registry import SECTIONS
from pit_downstream.report import plots as charts
from pit_downstream.report.attack_section import white_box
from pit_downstream.report.grids import Grid, grids
from pit_downstream.report.measured import Group, Measured, ModelResults, sources
from pit_downstream.report.parts import MISSING, Cell, Figure, Part, Section, Sheet, percent, points, readable, words

SEVERAL = (imagenet_c.CORRUPTIONS, 'the 15 corruptions')


@dataclass(frozen=True)
class Compared:
    """Accuracy of two models under one condition, or averaged over several. what: name of the condition."""

    what: str
    first: float
    second: float
    difference: Difference

    @property
    def by_image(self) -> bool:
        return self.difference.count is not None


@SECTIONS.register('differences')
def differences_section(measured: Measured) -> Section:
    """Build the section that compares classifiers with the baseline on the same images."""
    parts: list[Part] = []
    for group in measured.groups(lambda one: one.classifies):
        base = measured.baseline(group.ones)
        for index, other in enumerate((one for one in group.ones if one is not base), 1):
            if rows := list(_compared(measured, base, other)):
                parts += _shown(group, base, other, rows, f'difference{group.short}_{index}')
    lead = ('Accuracy of the second model less that of the first, in percentage points, with 95 % intervals. Where it '
            'was kept which images were right, the models are paired by image (a full dot): the interval is that of '
            "Bonett & Price (2012), p of McNemar's exact test. Elsewhere (a ring) the interval adds up those of both "
            'models, which is wider than need be. One interval in twenty misses zero by chance alone.')
    parts.sort(key=lambda part: isinstance(part, Sheet))  # figures first, side by side
    return Section('differences', 'Differences', lead, tuple(parts))


def _compared(measured: Measured, base: ModelResults, other: ModelResults) -> Iterator[Compared]:
    """Yield the clean, attacked and corrupted results that both models have."""
    if all((CLEAN, ERROR) in one.table for one in (base, other)):
        yield _of_rates(measured, base, other, CLEAN)
    for condition in base.conditions(ERROR):
        if white_box(condition) and (condition, ERROR) in other.table:
            yield _of_rates(measured, base, other, condition)
    for grid in grids(measured, lambda one: one.classifies):
        if base in grid.ones and other in grid.ones:
            yield from _of_corruptions(grid, base, other)


def _of_rates(measured: Measured, base: ModelResults, other: ModelResults, condition: Condition) -> Compared:
    first, second = (adversarial.get_accuracy(one.table, condition) for one in (base, other))
    kept = [measured.kept.verdicts.get(one.key, {}).get(str(condition), {}) for one in (base, other)]
    same = kept[0].keys() == kept[1].keys() and len(kept[0]) == first.count == second.count
    found = compare_paired(*kept) if same else compare_intervals((first.low, first.high), (second.low, second.high),
                                                                 second.value - first.value)
    attack, norm, epsilon = adversarial.describe_condition(condition)
    return Compared(', '.join(filter(None, (attack, f'{norm} {epsilon}'.strip()))), first.value, second.value, found)


def _of_corruptions(grid: Grid, base: ModelResults, other: ModelResults) -> Iterator[Compared]:
    """Yield the mean accuracy over all fifteen corruptions, and over the five severities of each."""
    each = [((name,), readable(name)) for name in grid.names]
    for names, title in (SEVERAL, *each):
        keys = [(imagenet_c.make_condition(name, severity, **grid.variant), ERROR)
                for name in names for severity in SEVERITIES]
        if all(key in one.table for one in (base, other) for key in keys):
            first, second = (1 - math.fsum(one.table[key] for key in keys) / len(keys) for one in (base, other))
            before, after = (imagenet_c.compute_mean_accuracy_interval(one.table, names, SEVERITIES, **grid.variant)
                             for one in (base, other))
            yield Compared(title + grid.said, first, second, compare_intervals(before, after, second - first))


def _shown(group: Group, base: ModelResults, other: ModelResults, rows: Sequence[Compared], name: str) -> list[Part]:
    caption = (f'Accuracy of {other.label} less that of {base.label} on {group.name}, in percentage points; right of '
               f'zero {other.label} is better. {sources([base, other])}')
    drawing = charts.forest(f'{other.label} − {base.label}', [row.what for row in rows], [
        (100 * row.difference.value, 100 * row.difference.low, 100 * row.difference.high, row.by_image)
        for row in rows], other.number, xlabel='difference in accuracy, points')
    drawn = tuple({'condition': row.what, 'first': base.label, 'second': other.label, 'value': row.difference.value,
                   'low': row.difference.low, 'high': row.difference.high, 'paired': row.by_image,
                   'p': row.difference.p} for row in rows)
    body = tuple((words(row.what), percent(row.first), percent(row.second),
                  points(row.difference.value, (row.difference.low, row.difference.high)), _p(row.difference.p),
                  words(f'by image, {row.difference.count}' if row.by_image else 'no')) for row in rows)
    columns = ('condition', base.label, other.label, 'difference, points', 'p', 'paired')
    return [Figure(name, caption, drawing, drawn), Sheet(name, caption, columns, body, folded=True)]


def _p(value: float | None) -> Cell:
    if value is None:
        return Cell(MISSING)
    return Cell(f'{value:.3f}' if value >= .001 else '< 0.001', value)
