"""Figures of benchmarks: in their layout, CE, accuracy over a strength, and clean beside shifted errors."""

import math
from collections.abc import Iterator, Mapping

from pit_downstream.benchmarks import adversarial, imagenet_c, shifts
from pit_downstream.results.condition import CLEAN
from pit_downstream.results.intervals import Estimate
from pit_downstream.results.layout import RATES, average_row, is_fraction, list_columns, list_places, make_grid
from pit_downstream.results.records import Record
from pit_downstream.results.results import Results
from pit_downstream.results.tables import Cell, missing, rate, words
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import Spec
from pit_downstream.report import plots
from pit_downstream.report.data import ALEXNET, Group, ReportData, get_numeric_arguments, is_by_strength
from pit_downstream.report.models import ERROR, ModelResults, format_sources
from pit_downstream.report.parts import Figure, Part, make_points, make_readable, make_slug, make_table

Grid = Mapping[tuple[str, str], Record]


def draw_corruptions(data: ReportData, group: Group) -> list[Part]:
    """Return the errors in the layout, and CE."""
    return [*draw_layout(data, group), *draw_ce(data, group)]


def draw_layout(data: ReportData, group: Group) -> Iterator[Figure]:
    """Yield figures in the layout of a benchmark: a heat map per model, and bars of the means or numbers of all."""
    layout = group.benchmark.layout
    for metric in group.metrics:
        grids = {entry: make_grid(results, layout, metric) for entry, results in group.pairs}
        name = f'{group.benchmark.name}_{metric}{group.suffix}'
        if layout.columns and is_fraction(metric):
            rows = list(dict.fromkeys(row for grid in grids.values() for row, column in grid if column))
            columns = list_columns(place for grid in grids.values() for place in grid)
            records = [record for grid in grids.values() for record in grid.values()]
            high = 1. if metric.endswith(RATES) else max((record.value for record in records), default=0) or 1.
            for entry, grid in grids.items():
                yield _draw_heat_map(group, entry, grid, (rows, columns), (metric, high, name))
        if layout.mean or not layout.columns:
            yield from _draw_means(data, group, metric, name)


def _draw_heat_map(group: Group, entry: ModelResults, grid: Grid, axes: tuple[list[str], list[str]],
                   scale: tuple[str, float, str]) -> Figure:
    (rows, columns), (metric, high, name), layout = axes, scale, group.benchmark.layout
    cells = {(rows.index(row), columns.index(column)): record.value for (row, column), record in grid.items()
             if column}
    single = ''.join(f', {row} {100 * record.value:.1f}' for (row, column), record in grid.items() if not column)
    drawing = plots.heat_map(entry.label + single, list(map(make_readable, rows)), columns, cells, high=high,
                             xlabel=layout.columns)
    points = tuple({'model': entry.label, layout.rows: row, layout.columns: column, metric: record.value}
                   for (row, column), record in grid.items() if column)
    gaps = ' A dash was not measured.' if len(cells) < len(rows) * len(columns) else ''
    return Figure(f'{name}_{make_slug(entry.label)}', f'{entry.label} on {group.name}: {make_readable(metric)} in '
                  f'percent by {layout.rows} and {layout.columns}.{gaps} {format_sources([entry])}', drawing, points)


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
    base = next((results for entry, results in group.pairs if entry.label == data.reference), None)
    names: tuple[str, ...] = group.benchmark.corruptions  # type: ignore[attr-defined]
    ratios = {entry: {name: ratio for name in names if (ratio := _compute_ratio(results, base, name)) is not None}
              for entry, results in group.pairs}
    if not any(ratios.values()):
        return
    known = {*imagenet_c.CORRUPTIONS, *imagenet_c.HOLD_OUT}.union(*ratios.values())
    reference = data.reference if base else ALEXNET
    caption = (f'CE in percent of {reference}, on {group.name}: below 100 is better than {reference}.'
               f'{"" if base else " Lines are 95 % intervals."} {format_sources(group.entries)}')
    drawn = {entry: row for entry, row in ratios.items() if row and entry.label != data.reference}
    if drawn:
        yield draw_bars(data, f'ce{group.suffix}', caption, drawn, title=f'CE against {reference}', row='corruption',
                        xlabel=f'CE, % of {reference}', line=100, reference=reference)
    rows = [{'corruption': words(make_readable(name)), **{entry.label: rate(row.get(name))
                                                          for entry, row in ratios.items()}}
            for name in names if name in known]
    rows.append({'corruption': words('mCE of the fifteen'), **{entry.label: _make_mce_cell(results, base, ratios[entry])
                                                               for entry, results in group.pairs}})
    yield make_table(f'ce{group.suffix}', caption, rows, folded=True)


def _compute_ratio(results: Results, base: Results | None, name: str) -> Estimate | None:
    """Return CE with its interval, or the quotient of errors to those of `base` without one. None over a gap."""
    arguments = results.benchmark.arguments  # type: ignore[attr-defined]
    try:
        if base is not None:
            errors = [math.fsum(table[imagenet_c.make_condition(name, severity, **arguments), ERROR]
                                for severity in imagenet_c.SEVERITIES) for table in (results.table, base.table)]
            return Estimate(errors[0] / errors[1])
        if imagenet_c.has_alexnet(results.table.dataset):
            return imagenet_c.compute_ce(results.table, name, **arguments)
    except (InputError, ZeroDivisionError):  # missing severity, unknown AlexNet error, or perfect reference
        pass
    return None


def _make_mce_cell(results: Results, base: Results | None, ratios: Mapping[str, Estimate]) -> Cell:
    """Return mCE over all fifteen corruptions, or a dash."""
    if not all(name in ratios for name in imagenet_c.CORRUPTIONS):
        return missing()
    if base is None:
        return rate(imagenet_c.summarize(results.table, **results.benchmark.arguments)['mCE'])  # type: ignore
    return rate(math.fsum(ratios[name].value for name in imagenet_c.CORRUPTIONS) / len(imagenet_c.CORRUPTIONS))


def draw_strengths(data: ReportData, group: Group) -> Iterator[Figure]:
    """Yield accuracy over every argument of a corruption that varies, with a line per model."""
    lines: dict[tuple[Spec, str], dict[ModelResults, list[tuple[float, Estimate]]]] = {}
    for entry, results in group.pairs:
        clean = [(0., adversarial.get_accuracy(entry.table, CLEAN))] if (CLEAN, ERROR) in entry.table else []
        for condition in results.benchmark.conditions():
            if is_by_strength(condition) and condition.corruption:
                for name, value in get_numeric_arguments(condition.corruption).items():
                    line = lines.setdefault((condition.corruption.without(name), name), {}).setdefault(entry, [*clean])
                    line.append((value, adversarial.get_accuracy(results.table, condition)))
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
