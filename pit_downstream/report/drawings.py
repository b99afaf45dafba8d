"""Figures of benchmarks: in their layout, CE, accuracy over a strength, and clean beside shifted errors."""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from pit_downstream.benchmarks import adversarial, imagenet_c, shifts
from pit_downstream.results.condition import CLEAN
from pit_downstream.results.intervals import Estimate
from pit_downstream.results.layout import RATES, average, average_row, is_fraction, list_columns, list_places, make_grid
from pit_downstream.results.tables import rate, words
from pit_downstream.utils.spec import Spec
from pit_downstream.report import plots
from pit_downstream.report.data import ALEXNET, Group, ReportData, is_by_strength
from pit_downstream.report.models import ERROR, ModelResults, format_sources
from pit_downstream.report.parts import Figure, Part, make_points, make_readable, make_slug, make_table


def draw_corruptions(data: ReportData, group: Group) -> list[Part]:
    """Return the errors in the layout, and CE."""
    return [*draw_layout(data, group), *draw_ce(data, group)]


def draw_layout(data: ReportData, group: Group) -> Iterator[Figure]:
    """Yield figures in the layout of a benchmark: a heat map per model, and bars of the means or numbers of all."""
    layout = group.benchmark.layout
    for metric in group.metrics:
        name = f'{group.benchmark.name}_{metric}{group.suffix}'
        if layout.columns and is_fraction(metric):
            yield from _draw_heat_maps(group, metric, name)
        if layout.mean or not layout.columns:
            yield from _draw_means(data, group, metric, name)


def _draw_heat_maps(group: Group, metric: str, name: str) -> Iterator[Figure]:
    """Yield a heat map per model, with the rows and columns of all. Numbers without a column are in the title."""
    layout = group.benchmark.layout
    grids = {entry: make_grid(results, layout, metric) for entry, results in group.pairs}
    rows = list(dict.fromkeys(row for grid in grids.values() for row, column in grid if column))
    columns = list_columns(place for grid in grids.values() for place in grid)
    largest = max((record.value for grid in grids.values() for record in grid.values()), default=0)
    for entry, grid in grids.items():
        places = {place: record.value for place, record in grid.items() if place[1]}
        cells = {(rows.index(row), columns.index(column)): value for (row, column), value in places.items()}
        single = ''.join(f', {row} {100 * record.value:.1f}' for (row, column), record in grid.items() if not column)
        drawing = plots.heat_map(entry.label + single, list(map(make_readable, rows)), columns, cells,
                                 high=1. if metric.endswith(RATES) else largest or 1., xlabel=layout.columns)
        gaps = ' A dash was not measured.' if len(cells) < len(rows) * len(columns) else ''
        yield Figure(f'{name}_{make_slug(entry.label)}', f'{entry.label} on {group.name}: {make_readable(metric)} in '
                     f'percent by {layout.rows} and {layout.columns}.{gaps} {format_sources([entry])}', drawing, tuple(
                         {'model': entry.label, layout.rows: row, layout.columns: column, metric: value}
                         for (row, column), value in places.items()))


def _draw_means(data: ReportData, group: Group, metric: str, name: str) -> Iterator[Figure]:
    """Yield bars of every row: its number, or its mean over the columns where all were measured."""
    layout, values = group.benchmark.layout, {}
    for entry, results in group.pairs:
        grid, places = make_grid(results, layout, metric), list_places(results, layout, metric)
        means = {row: average_row(grid, places, row) for row in dict.fromkeys(row for row, column in grid if column)}
        values[entry] = {row: Estimate.of_rate(mean, grid[row, metric].count)
                         if not layout.columns and metric.endswith(RATES) else Estimate(mean)
                         for row, mean in means.items() if mean is not None}
    noun = make_readable(f'mean {metric}' if layout.columns else metric)
    over = f', over {layout.columns}' if layout.columns else ''
    if any(values.values()):
        yield draw_bars(data, f'mean_{name}' if layout.columns else name, f'{noun} by {layout.rows}{over}, on '
                        f'{group.name}{", in percent" if is_fraction(metric) else ""}. {format_sources(list(values))}',
                        values, title=f'{noun} by {layout.rows}', row=layout.rows, value=metric,
                        xlabel=noun + (', %' if is_fraction(metric) else ''), scale=100 if is_fraction(metric) else 1)


def draw_bars(data: ReportData, name: str, caption: str, values: Mapping[ModelResults, Mapping[str, Estimate]], *,
              title: str, row: str, xlabel: str, line: float | None = None, scale: float = 100, value: str = 'value',
              **extra: str) -> Figure:
    """Return bars of the numbers of several models by row. row, value, extra: keys of the points."""
    rows = list(dict.fromkeys(name for by_row in values.values() for name in by_row))
    series = {entry.label: {rows.index(name): tuple(None if end is None else scale * end for end in (
        one.value, one.low, one.high)) for name, one in by_row.items()} for entry, by_row in values.items()}
    drawing = plots.bars(title, list(map(make_readable, rows)), series, data.numbers, xlabel=xlabel, line=line)
    return Figure(name, caption, drawing, tuple(
        {'model': entry.label, row: name, **extra, value: one.value, 'low': one.low, 'high': one.high}
        for entry, by_row in values.items() for name, one in by_row.items()))


def draw_ce(data: ReportData, group: Group) -> Iterator[Part]:
    """Yield CE per corruption and mCE, relative to a model on the same images or, on ImageNet, to AlexNet."""
    base = next((results.table for entry, results in group.pairs if entry.label == data.reference), None)
    benchmark: Any = group.benchmark
    ratios = {entry: {name: ce for name in benchmark.corruptions if (
        ce := imagenet_c.find_ce(results.table, name, benchmark.arguments, base))} for entry, results in group.pairs}
    if not any(ratios.values()):
        return
    reference = ALEXNET if base is None else data.reference
    caption = (f'CE in percent of {reference}, on {group.name}: below 100 is better than {reference}.'
               f'{" Lines are 95 % intervals." if base is None else ""} {format_sources(group.entries)}')
    drawn = {entry: row for entry, row in ratios.items() if row and entry.label != data.reference}
    if drawn:
        yield draw_bars(data, f'ce{group.suffix}', caption, drawn, title=f'CE against {reference}', row='corruption',
                        xlabel=f'CE, % of {reference}', line=100, reference=reference)
    known = {*imagenet_c.CORRUPTIONS, *imagenet_c.HOLD_OUT}.union(*ratios.values())
    rows = [{'corruption': words(make_readable(name)), **{entry.label: rate(row.get(name))
                                                          for entry, row in ratios.items()}}
            for name in benchmark.corruptions if name in known]
    mce: dict[str, Estimate | float | None] = {
        entry.label: results.benchmark.select_headline(results).get('mCE') for entry, results in group.pairs}
    if base is not None:
        mce = {entry.label: average([row[name].value if name in row else None for name in imagenet_c.CORRUPTIONS])
               for entry, row in ratios.items()}
    rows.append({'corruption': words('mCE of the fifteen'), **{label: rate(value) for label, value in mce.items()}})
    yield make_table(f'ce{group.suffix}', caption, rows, folded=True)


def draw_strengths(data: ReportData, group: Group) -> Iterator[Figure]:
    """Yield accuracy over every argument of a corruption that varies, with a line per model."""
    lines: dict[tuple[Spec, str], dict[ModelResults, list[tuple[float, Estimate]]]] = {}
    for entry, results in group.pairs:
        clean = [(0., adversarial.get_accuracy(entry.table, CLEAN))] if (CLEAN, ERROR) in entry.table else []
        for condition in results.benchmark.conditions():
            if is_by_strength(condition) and condition.corruption:
                for name, value in condition.corruption.kwargs:
                    if not isinstance(value, (int, float, Fraction)) or isinstance(value, bool):
                        continue
                    line = lines.setdefault((condition.corruption.without(name), name), {}).setdefault(entry, [*clean])
                    line.append((float(value), adversarial.get_accuracy(results.table, condition)))
    varying = {key: series for key, series in lines.items() if any(
        sum(x > 0 for x, _ in line) > 1 for line in series.values())}
    for index, ((rest, name), series) in enumerate(varying.items(), 1):
        by_label = {entry.label: sorted(line, key=lambda point: point[0]) for entry, line in series.items()}
        drawn, points = make_points(by_label, name, key='model', corruption=str(rest))
        drawing = plots.curves(str(rest), drawn, data.numbers, xlabel=name, ylabel='accuracy, %')
        yield Figure(f'strength{group.suffix}_{index}', f'Accuracy under {rest} on {group.name}, over {name}, with '
                     f'95 % intervals (Wilson). {format_sources(list(series))}', drawing, points)


def draw_shifts(data: ReportData, group: Group) -> Iterator[Figure]:
    """Yield the errors on shifted and on matching clean images, a figure per model."""
    for index, (entry, results) in enumerate(group.pairs, 1):
        names = list(shifts.list_measured_shifts(results.tables))
        values = {row: (shifts.get_clean_error(results.tables, name), shifts.get_record(
            results.tables, shifts.get_error_key(name)).value) for row, name in enumerate(names)}
        drawing = plots.pairs(entry.label, names, values, entry.number, names=('matching clean images',
                                                                               'shifted images'),
                              xlabel='top-1 error, %')
        yield Figure(f'shifts_{index}_{make_slug(entry.label)}', f'{entry.label}: top-1 error in percent on shifted '
                     f'datasets and on the matching clean images. {format_sources(group.sources)}', drawing, tuple(
                         {'model': entry.label, 'shift': names[row], 'clean': clean, 'error': error}
                         for row, (clean, error) in values.items()))
