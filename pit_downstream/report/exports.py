"""Export of a report: numbers as JSON and CSV, tables as LaTeX and Markdown, figures as SVG and PNG."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.path_checks import (
    require_writable_file,
    require_writable_folder,
    resolve_inside,
    write_atomic,
)
from pit_downstream.report import plot_style as drawing
from pit_downstream.report.page import interval
from pit_downstream.report.parts import MISSING, Cell, Figure, Report, Section, Sheet

COLUMNS = ('section', 'kind', 'part', 'row', 'column', 'value', 'low', 'high')
_LATEX = {'\\': r'\textbackslash{}', '&': r'\&', '%': r'\%', '$': r'\$', '#': r'\#', '_': r'\_', '{': r'\{', '}': r'\}',
          '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', MISSING: '--', '−': '$-$', '<': '$<$', '>': '$>$',
          '“': '``', '”': "''", '…': r'\ldots{}'}


def require_places(out: str | Path, *, figures: str | None = None, tables: str | None = None) -> None:
    """Raise InputError, before any work, if the page or its exports cannot be written."""
    if Path(out).suffix.lower() not in ('.html', '.htm'):
        raise InputError(f'expected an HTML file for --output, got {out}; name one like report.html')
    for suffix in (Path(out).suffix, '.json', '.csv'):
        require_writable_file(Path(out).with_suffix(suffix), '--output')
    for flag, folder in (('--figures', figures), ('--tables', tables)):
        if folder:
            require_writable_folder(folder, flag)


def as_json(report: Report) -> str:
    """Return {'title', 'about', 'models', 'sections': {name: {'title', 'tables', 'figures', 'gaps'}}}, in fractions.

    tables: by name {'caption', 'columns', 'rows'}. A cell is {'text'}; a number also has 'value', 'low', 'high'.
    figures: by name {'caption', 'points'}.
    """
    sections = {section.name: {
        'title': section.title,
        'tables': {part.name: _table(part) for part in section.parts if isinstance(part, Sheet)},
        'figures': {part.name: {'caption': part.caption, 'points': list(map(dict, part.points))}
                    for part in section.parts if isinstance(part, Figure)},
        'gaps': [vars(gap) for gap in section.gaps]} for section in report.sections}
    about = {'title': report.title, 'about': report.about, 'models': list(report.models)}
    return json.dumps({**about, 'sections': sections}, indent=1) + '\n'


def as_csv(report: Report) -> str:
    """Return one line per number in tables and figures."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(COLUMNS)
    for section in report.sections:
        for part in section.parts:
            writer.writerows(_sheet_lines(section, part) if isinstance(part, Sheet) else
                             _figure_lines(section, part) if isinstance(part, Figure) else ())
    return out.getvalue()


def as_markdown(sheet: Sheet) -> str:
    """Return a GitHub Markdown table. Numbers are right-aligned, with intervals in brackets."""
    def line(cells: list[str]) -> str:
        return f'| {" | ".join(cell.replace("|", chr(92) + "|") for cell in cells)} |'
    rule = ['---:' if _numeric(sheet, column) else '---' for column in range(len(sheet.columns))]
    rows = [line([_plain(cell) for cell in row]) for row in sheet.rows]
    return '\n'.join([line(list(sheet.columns)), line(rule), *rows, '', sheet.caption, ''])


def as_latex(sheet: Sheet) -> str:
    """Return a LaTeX table for the booktabs package."""
    columns = ''.join('r' if _numeric(sheet, column) else 'l' for column in range(len(sheet.columns)))
    lines = [' & '.join(map(_escaped, cells)) + r' \\' for cells in
             [list(sheet.columns), *([_plain(cell) for cell in row] for row in sheet.rows)]]
    return '\n'.join([r'\begin{table}', r'\centering', rf'\caption{{{_escaped(sheet.caption)}}}',
                      rf'\label{{tab:{sheet.name.replace("_", "-")}}}', rf'\begin{{tabular}}{{{columns}}}', r'\toprule',
                      lines[0], r'\midrule', *lines[1:], r'\bottomrule', r'\end{tabular}', r'\end{table}', ''])


def write_report(report: Report, out: str | Path, *, html: str) -> list[Path]:
    """Write the page, with its numbers beside it as JSON and CSV, and return the files."""
    files = {Path(out): html, Path(out).with_suffix('.json'): as_json(report),
             Path(out).with_suffix('.csv'): as_csv(report)}
    for path, text in files.items():
        write_atomic(path, text)
    return list(files)


def write_figures(report: Report, folder: str | Path | None) -> list[Path]:
    """Write every figure as NAME.svg and NAME.png, and return the files. Without a folder, write none."""
    if folder is None:
        return []
    files = []
    Path(folder).mkdir(parents=True, exist_ok=True)
    for figure in report.parts(Figure):
        path = resolve_inside(folder, f'{figure.name}.svg')
        write_atomic(path, drawing.svg(figure.drawing, figure.name))
        write_atomic(path.with_suffix('.png'), drawing.png(figure.drawing))
        files += [path, path.with_suffix('.png')]
    return files


def write_tables(report: Report, folder: str | Path | None) -> list[Path]:
    """Write every table as NAME.tex and NAME.md, and return the files. Without a folder, write none."""
    if folder is None:
        return []
    files = []
    Path(folder).mkdir(parents=True, exist_ok=True)
    for sheet in report.parts(Sheet):
        for suffix, write in (('.tex', as_latex), ('.md', as_markdown)):
            files.append(resolve_inside(folder, sheet.name + suffix))
            write_atomic(files[-1], write(sheet))
    return files


def _table(sheet: Sheet) -> dict[str, Any]:
    return {'caption': sheet.caption, 'columns': list(sheet.columns),
            'rows': [[_cell(cell) for cell in row] for row in sheet.rows]}


def _cell(cell: Cell) -> dict[str, Any]:
    ends = {} if cell.low is None else {'low': cell.low, 'high': cell.high}
    return {'text': cell.text} | ({} if cell.value is None else {'value': cell.value}) | ends


def _sheet_lines(section: Section, sheet: Sheet) -> Iterator[tuple]:
    for row in sheet.rows:
        name = ' | '.join(cell.text for cell in row if cell.value is None and cell.text not in ('', MISSING))
        for column, cell in zip(sheet.columns, row, strict=True):
            if cell.value is not None:
                yield section.name, 'table', sheet.name, name, column, cell.value, _end(cell.low), _end(cell.high)


def _figure_lines(section: Section, figure: Figure) -> Iterator[tuple]:
    for point in figure.points:
        rest = {key: value for key, value in point.items() if key not in ('low', 'high', 'p', 'paired')}
        column = 'value' if 'value' in rest else list(rest)[-1]
        name = ' | '.join(f'{key}={value}' for key, value in rest.items() if key != column)
        yield (section.name, 'figure', figure.name, name, column, rest[column], _end(point.get('low')),
               _end(point.get('high')))


def _end(value: float | None) -> float | str:
    return '' if value is None else value


def _numeric(sheet: Sheet, column: int) -> bool:
    return any(row[column].value is not None for row in sheet.rows)


def _plain(cell: Cell) -> str:
    return f'{cell.text} ({interval(cell)})' if interval(cell) else cell.text


def _escaped(text: str) -> str:
    return ''.join(_LATEX.get(letter, letter) for letter in text)
