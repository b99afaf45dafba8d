"""Export of a report: numbers as JSON and CSV, tables as LaTeX and Markdown, figures as SVG and PNG."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pit_downstream.results.tables import MISSING, Cell, Sheet, render_latex, render_markdown
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.path_checks import (
    require_writable_file,
    require_writable_folder,
    resolve_inside,
    write_atomic,
)
from pit_downstream.report import plot_style
from pit_downstream.report.parts import Figure, Report

COLUMNS = ('section', 'kind', 'part', 'row', 'column', 'value', 'low', 'high')


def check_outputs(output: str | Path, *, figures: str | None = None, tables: str | None = None) -> None:
    """Raise InputError, before any work, if the page or its exports cannot be written."""
    path = Path(output)
    if path.suffix.lower() not in ('.html', '.htm'):
        raise InputError(f'--output must be an HTML file, got {output}. Pass a name like report.html.')
    for suffix in (path.suffix, '.json', '.csv'):
        require_writable_file(path.with_suffix(suffix), '--output')
    for flag, folder in (('--figures', figures), ('--tables', tables)):
        if folder:
            require_writable_folder(folder, flag)


def format_json(report: Report) -> str:
    """Return {'title', 'about', 'models', 'sections': {name: {'title', 'tables', 'figures', 'gaps'}}}, in fractions.

    tables: by name {'caption', 'columns', 'rows'}. A cell is {'text'}; a number also has 'value', 'low', 'high'.
    figures: by name {'caption', 'points'}.
    """
    sections = {section.name: {
        'title': section.title,
        'tables': {part.name: {'caption': part.caption, 'columns': list(part.columns),
                               'rows': [list(map(_make_cell, row)) for row in part.rows]}
                   for part in section.parts if isinstance(part, Sheet)},
        'figures': {part.name: {'caption': part.caption, 'points': list(map(dict, part.points))}
                    for part in section.parts if isinstance(part, Figure)},
        'gaps': [vars(gap) for gap in section.gaps]} for section in report.sections}
    return json.dumps({'title': report.title, 'about': report.about, 'models': list(report.models),
                       'sections': sections}, indent=1) + '\n'


def format_csv(report: Report) -> str:
    """Return one line per number in tables and figures."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(COLUMNS)
    for section in report.sections:
        for part in section.parts:
            if isinstance(part, (Sheet, Figure)):
                kind = 'table' if isinstance(part, Sheet) else 'figure'
                writer.writerows((section.name, kind, part.name, *numbers) for numbers in _list_numbers(part))
    return out.getvalue()


def write_report(report: Report, output: str | Path, *, html: str) -> list[Path]:
    """Write the page, with its numbers beside it as JSON and CSV, and return the files."""
    path = Path(output)
    files = {path: html, path.with_suffix('.json'): format_json(report), path.with_suffix('.csv'): format_csv(report)}
    for file, text in files.items():
        write_atomic(file, text)
    return list(files)


def write_figures(report: Report, folder: str | Path) -> None:
    """Write every figure as NAME.svg and NAME.png."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for figure in report.list_parts(Figure):
        path = resolve_inside(folder, f'{figure.name}.svg')
        write_atomic(path, plot_style.svg(figure.drawing, figure.name))
        write_atomic(path.with_suffix('.png'), plot_style.png(figure.drawing))


def write_tables(report: Report, folder: str | Path) -> None:
    """Write every table as NAME.tex and NAME.md."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for sheet in report.list_parts(Sheet):
        for suffix, render in (('.tex', render_latex), ('.md', render_markdown)):
            write_atomic(resolve_inside(folder, sheet.name + suffix), render(sheet))


def _make_cell(cell: Cell) -> dict[str, Any]:
    ends = {} if cell.low is None else {'low': cell.low, 'high': cell.high}
    return {'text': cell.text} | ({} if cell.value is None else {'value': cell.value}) | ends


def _list_numbers(part: Sheet | Figure) -> Iterator[tuple]:
    """Yield row, column, value, and ends of the interval, for every number of a table or figure."""
    if isinstance(part, Sheet):
        for row in part.rows:
            name = ' | '.join(cell.text for cell in row if cell.value is None and cell.text not in ('', MISSING))
            yield from ((name, column, cell.value, cell.low, cell.high)
                        for column, cell in zip(part.columns, row, strict=True) if cell.value is not None)
    else:
        for point in part.points:
            rest = {key: value for key, value in point.items() if key not in ('low', 'high', 'p', 'paired')}
            column = 'value' if 'value' in rest else list(rest)[-1]
            name = ' | '.join(f'{key}={value}' for key, value in rest.items() if key != column)
            yield name, column, rest[column], point.get('low'), point.get('high')
