"""Report section on differences: two models on the same images, and how much better one is, in every benchmark."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pit_downstream.benchmarks.adversarial import describe_condition
from pit_downstream.benchmarks.attention import get_records, list_profiles
from pit_downstream.results.condition import Condition
from pit_downstream.results.intervals import Difference
from pit_downstream.results.layout import choose_metric, is_fraction, make_grid
from pit_downstream.results.records import Record
from pit_downstream.results.results import Results, average_records, compare_records, get_image_key, have_same_images
from pit_downstream.results.tables import Cell, Sheet, missing, number, points, rate, words
from pit_downstream.report import plots
from pit_downstream.report.data import Group, ReportData
from pit_downstream.report.models import ModelResults, format_sources
from pit_downstream.report.parts import Figure, Part, Section, make_readable, make_table


@dataclass(frozen=True)
class Comparison:
    """Means of two models over the same conditions or, for measures of blocks, over the layers of each."""

    title: str
    metric: str
    first: float
    second: float
    difference: Difference

    @property
    def is_paired(self) -> bool:
        return self.difference.count is not None


def build_differences(data: ReportData) -> Section:
    """Build the section that compares models with the baseline on the same images, in every benchmark."""
    parts: list[Part] = []
    for name, groups in data.groups.items():
        for group in groups:
            base = data.get_baseline(group.entries)
            first = dict(group.pairs)[base]
            for index, (entry, second) in enumerate(((entry, results) for entry, results in group.pairs
                                                     if entry is not base), 1):
                if rows := list(compare_rows(first, second)):
                    parts += _show(group, base, entry, rows, f'difference_{name}{group.suffix}_{index}')
    lead = ('Numbers of the second model minus those of the first, in percentage points where they are fractions, with '
            '95 % intervals. Of errors, the accuracies are compared: above zero the second model is better. With '
            'per-image outcomes, the models are paired by image (a full dot): the interval of accuracies is that of '
            "Bonett & Price (2012), p of McNemar's exact test; that of means over conditions or layers is the normal "
            'one. Otherwise (a ring) the interval adds those of both models, which is wider than necessary. One '
            'interval in twenty misses zero by chance alone.')
    parts.sort(key=lambda part: isinstance(part, Sheet))  # figures first, side by side
    return Section('differences', 'Differences', lead, tuple(parts))


def compare_rows(first: Results, second: Results) -> Iterator[Comparison]:
    """Yield the differences of two results of one benchmark, by row of its layout.

    With a mean over the columns, rows are means over the columns that both results have, and the last row is the mean
    over all of them. Measures of blocks are means over the layers of each model.
    """
    layout, metric = first.benchmark.layout, choose_metric(first, first.benchmark.layout)
    if 'layer' in (layout.rows, layout.columns):
        profiles = [list_profiles(get_records(results.table)) for results in (first, second)]
        for title in profiles[0]:
            if title in profiles[1] and have_same_images(first.table, second.table):
                yield compare_means(first, second, title, *(list(one[title].values()) for one in profiles))
        return
    grids = [make_grid(results, layout, metric) for results in (first, second)]
    places = [place for place in grids[0] if place in grids[1] and get_image_key(
        grids[0][place].dataset) == get_image_key(grids[1][place].dataset)]
    chosen: list[tuple[str, list[tuple[str, str]]]] = [
        (_describe(place, grids[0][place]), [place]) for place in places]
    if layout.columns and layout.mean:
        rows = dict.fromkeys(row for row, _ in places)
        chosen = [(make_readable(row), [place for place in places if place[0] == row]) for row in rows]
        corrupted = [place for place in places if place[1]]
        if sum(1 for row in rows if (row, '') not in places) > 1:
            chosen.append((f'mean of {len(corrupted)} conditions', corrupted))
    for title, several in chosen:
        yield compare_means(first, second, title, *([grid[place] for place in several] for grid in grids))


def compare_means(first: Results, second: Results, title: str, records: Sequence[Record], others: Sequence[Record]
                  ) -> Comparison:
    """Compare the means of records of two models. Errors are compared as accuracies."""
    metric, means = records[0].metric, [average_records(records), average_records(others)]
    if metric.endswith('_error'):
        metric, means = f'{metric.removesuffix("_error")}_accuracy', [1 - mean for mean in means]
    return Comparison(title, metric, means[0], means[1], compare_records(first, second, records, others))


def _describe(place: tuple[str, str], record: Record) -> str:
    condition = Condition.parse(record.condition)
    if condition.attack is None:
        return ', '.join(filter(None, (place[0], place[1] if place[1] != record.metric else '')))
    attack, norm, epsilon = describe_condition(condition)
    return ', '.join(filter(None, (attack, f'{norm} {epsilon}'.strip())))


def _show(group: Group, base: ModelResults, entry: ModelResults, rows: Sequence[Comparison], name: str
          ) -> Iterator[Part]:
    """Yield a forest plot of fractions, and the table of all rows."""
    title = group.benchmark.title or group.benchmark.name
    caption = (f'{title}: {entry.label} minus {base.label}{group.name and f" on {group.name}"}. '
               f'{format_sources([base, entry])}')
    if all(is_fraction(row.metric) for row in rows):
        drawing = plots.forest(f'{title}: {entry.label} − {base.label}', [row.title for row in rows], [
            (100 * row.difference.value, 100 * row.difference.low, 100 * row.difference.high, row.is_paired)
            for row in rows], entry.number, xlabel=f'difference in {make_readable(rows[0].metric)}, points')
        yield Figure(name, caption, drawing, tuple(
            {'condition': row.title, 'first': base.label, 'second': entry.label, 'value': row.difference.value,
             **dict(zip(('low', 'high'), _get_interval(row), strict=True)), 'paired': row.is_paired,
             'p': row.difference.p} for row in rows))
    body = []
    for row in rows:
        interval, p = _get_interval(row), row.difference.p
        make = rate if is_fraction(row.metric) else number
        change = (points(row.difference.value, interval) if is_fraction(row.metric) else
                  Cell(f'{row.difference.value:+.3g}'.replace('-', '−'), row.difference.value))
        body.append({'condition': words(row.title), 'metric': words(make_readable(row.metric)),
                     base.label: make(row.first), entry.label: make(row.second), 'difference': change,
                     'p': missing() if p is None else Cell(f'{p:.3f}' if p >= .001 else '< 0.001', p),
                     'paired': words(f'by image, {row.difference.count}' if row.is_paired else 'no')})
    yield make_table(name, caption, body, folded=True)


def _get_interval(row: Comparison) -> tuple[float | None, float | None]:
    """Return the interval of a difference, None if it has none."""
    low, high = row.difference.low, row.difference.high
    return (None, None) if math.isnan(low) else (low, high)
