"""Section of any benchmark: figures and tables in its layout, models side by side, and gaps with commands."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from pit_downstream.benchmarks.adversarial import COSTS
from pit_downstream.results.intervals import Estimate
from pit_downstream.results.layout import RATES, average_row, list_columns, list_places, make_cell, make_grid
from pit_downstream.results.results import Gap
from pit_downstream.results.tables import Cell, Sheet, count, missing, rate, words
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.report.attacks import draw_attacks
from pit_downstream.report.attention import draw_attention
from pit_downstream.report.data import Group, ReportData
from pit_downstream.report.drawings import draw_corruptions, draw_layout, draw_shifts, draw_strengths
from pit_downstream.report.models import format_sources
from pit_downstream.report.parts import Heading, Part, Section, make_readable, make_table

TITLES = {'occlusion': 'Strengths'}  # the section also has other corruptions without a severity


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
        command = cls().build_command(data.make_results(cls(), {'data': entry}), [])
        gaps.append(Gap(f'{entry.label}: {cls.title or name} not measured', command))
    return Section(name, TITLES.get(name, cls.title or name), cls.about, tuple(parts), tuple(gaps))


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
