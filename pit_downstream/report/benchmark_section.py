"""Section of any benchmark: figures and tables in its layout, models side by side, and gaps with commands."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from pit_downstream.results.intervals import Estimate
from pit_downstream.results.layout import (
    RATES,
    average_row,
    is_fraction,
    list_columns,
    list_places,
    make_cell,
    make_grid,
)
from pit_downstream.results.records import Record
from pit_downstream.results.results import Gap
from pit_downstream.results.tables import Cell, Sheet, count, missing, rate, words
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.report import plots
from pit_downstream.report.attacks import draw_attacks
from pit_downstream.report.attention import draw_attention
from pit_downstream.report.corruptions import draw_ce, draw_shifts, draw_strengths
from pit_downstream.report.data import Group, ReportData
from pit_downstream.report.models import ModelResults, format_sources
from pit_downstream.report.parts import Figure, Heading, Part, Section, make_slug, make_table

TITLES = {'occlusion': 'Strengths'}  # the section also has other corruptions without a severity
COSTS = ('forwards', 'backwards')

Grid = Mapping[tuple[str, str], Record]


def build_section(data: ReportData, name: str) -> Section:
    """Build the section of a benchmark: figures, tables with all models, and gaps with commands."""
    cls = BENCHMARKS[name]
    draw: Callable[[ReportData, Group], Iterable[Part]] = {
        'imagenet_c': draw_corruptions, 'occlusion': draw_strengths, 'adversarial': draw_attacks,
        'detection_attacks': draw_attacks, 'shifts': draw_shifts, 'attention': draw_attention}.get(name, draw_layout)
    parts: list[Part] = []
    gaps: list[Gap] = []
    for group in data.groups[name]:
        parts += [*([Heading(group.name)] if group.name else []), *draw(data, group), *merge_sheets(group),
                  *tabulate_metrics(group)]
        if len(group.entries) > 1 and name not in ('attention', 'shifts'):
            parts.append(compare_models(group))
        gaps += [Gap(f'{entry.label}{group.name and f" on {group.name}"}: {gap.what}', gap.command)
                 for entry, results in group.pairs for gap in results.gaps]
    for entry in data.list_models_without(name):
        command = cls().build_command(data.make_results(cls(), entry), [])
        gaps.append(Gap(f'{entry.label}: {cls.title or name} not measured', command))
    return Section(name, TITLES.get(name, cls.title or name), cls.about, tuple(parts), tuple(gaps))


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
            yield from _draw_bars(data, group, metric, name)


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


def _draw_bars(data: ReportData, group: Group, metric: str, name: str) -> Iterator[Figure]:
    """Yield bars of every row: its number, or its mean over the columns where all were measured."""
    layout, scale = group.benchmark.layout, 100 if is_fraction(metric) else 1
    values: dict[ModelResults, dict[str, Estimate]] = {}
    for entry, results in group.pairs:
        grid, places = make_grid(results, layout, metric), list_places(results, layout, metric)
        for row in dict.fromkeys(row for row, column in grid if column):
            mean = average_row(grid, places, row)
            if not layout.columns and metric.endswith(RATES):
                values.setdefault(entry, {})[row] = Estimate.of_rate(grid[row, metric].value, grid[row, metric].count)
            elif mean is not None:
                values.setdefault(entry, {})[row] = Estimate(mean)
    rows = list(dict.fromkeys(row for by_row in values.values() for row in by_row))
    if rows:
        noun = make_readable(f'mean {metric}' if layout.columns else metric)
        series = {entry.label: {rows.index(row): tuple(None if end is None else scale * end for end in (
            one.value, one.low, one.high)) for row, one in by_row.items()} for entry, by_row in values.items()}
        drawing = plots.bars(f'{noun} by {layout.rows}', list(map(make_readable, rows)), series, data.numbers,
                             xlabel=f'{noun}, %' if scale > 1 else noun)
        over = f', over {layout.columns}' if layout.columns else ''
        yield Figure(f'mean_{name}' if layout.columns else name, f'{noun} by {layout.rows}{over}, on {group.name}'
                     f'{", in percent" if scale > 1 else ""}. {format_sources(list(values))}', drawing, tuple(
                         {'model': entry.label, layout.rows: row, metric: one.value}
                         for entry, by_row in values.items() for row, one in by_row.items()))


def merge_sheets(group: Group) -> Iterator[Sheet]:
    """Yield the tables of a benchmark with the rows of all models. Rates by row and column have their intervals."""
    layout, name = group.benchmark.layout, group.benchmark.name
    merged: dict[str, list[dict[str, Cell]]] = {}
    captions: dict[str, str] = {}
    for entry, results in group.pairs:
        for sheet in results.sheets:
            merged.setdefault(sheet.name, []).extend(
                {'model': entry.cell, **dict(zip(sheet.columns, row, strict=True))} for row in sheet.rows)
            captions.setdefault(sheet.name, sheet.caption if len(group.entries) == 1 else sheet.caption.replace(
                results.subject, f'the models on {group.name}').replace(f'of {results.label} ', 'of the models '))
    for sheet_name, rows in merged.items():
        metric = sheet_name.removeprefix(f'{name}_')
        if layout.columns and metric in group.metrics and metric.endswith(RATES):
            yield tabulate_grid(group, metric)
        else:
            yield make_table(sheet_name + group.suffix, f'{captions[sheet_name]} {format_sources(group.sources)}', rows,
                             folded=len(rows) > 12)


def tabulate_grid(group: Group, metric: str) -> Sheet:
    """Return a table of rates with a row per model and row of the layout: intervals, mean, and number of images."""
    layout, rows = group.benchmark.layout, []
    for entry, results in group.pairs:
        grid, places = make_grid(results, layout, metric), list_places(results, layout, metric)
        for name in dict.fromkeys(name for name, _ in grid):
            records = {column: record for (row, column), record in grid.items() if row == name}
            row = {'model': entry.cell, layout.rows: words(make_readable(name))}
            for column in list_columns(grid):
                record = records.get(column)
                row[f'{layout.columns} {column}'] = words('') if '' in records else missing() if record is None else \
                    rate(Estimate.of_rate(record.value, record.count))
            row |= {'mean': rate(average_row(grid, places, name))} if layout.mean else {}
            rows.append({**row, 'n': count(min(record.count for record in records.values()))})
    caption = (f'{metric} on {group.name}, in percent with 95 % intervals (Wilson); n: images. The mean over the '
               f'columns is there only where all were measured. {format_sources(group.entries)}')
    return make_table(f'{group.benchmark.name}_{metric}{group.suffix}', caption, rows, folded=True)


def tabulate_metrics(group: Group) -> Iterator[Sheet]:
    """Yield the metrics that no other table has, under every condition."""
    rows = []
    for entry, results in group.pairs:
        others: dict[str, dict[str, Cell]] = {}
        for record in results.table.records:
            if not (record.layer or record.class_name or record.metric in (*group.metrics, *COSTS)):
                others.setdefault(record.condition, {})[record.metric] = make_cell(record.metric, record.value)
        rows += [{'model': entry.cell, 'condition': words(condition), **cells} for condition, cells in others.items()]
    if rows and group.name and group.benchmark.layout.columns != 'layer':
        yield make_table(f'{group.benchmark.name}_metrics{group.suffix}', f'Other metrics on {group.name}; fractions '
                         f'are in percent. {format_sources(group.entries)}', rows, folded=True)


def compare_models(group: Group) -> Sheet:
    """Return the table with a column per model, the best number of a row in bold."""
    sheet = group.benchmark.compare_models(group.results)
    return replace(sheet, name=sheet.name + group.suffix, folded=True, columns=(
        sheet.columns[0], *(entry.label for entry in group.entries)),
        caption=f'Models side by side. {sheet.caption} {format_sources(group.entries)}')


def make_readable(name: str) -> str:
    return name.replace('_', ' ')
