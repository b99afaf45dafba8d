"""Tables of results and the renderer of every format: text, Markdown, LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tabulate import tabulate

from pit_downstream.results.intervals import Difference, Estimate

MISSING = '–'
_BOLD, _END = '\ue000', '\ue001'  # marks in a cell, replaced by \textbf{...} after tabulate has escaped the text
_LATEX = {MISSING: '--', '−': '$-$', '“': '``', '”': "''", '…': r'\ldots{}', '±': r'$\pm$', '×': r'$\times$',
          _BOLD: r'\textbf{', _END: '}'}


@dataclass(frozen=True)
class Cell:
    """Cell of a table.

    Attributes:
        text: Text on a page and in a paper. A fraction is a percentage there.
        value: Exact number, None for words. low, high: Ends of its 95 % interval, if any.
        fraction: Text in a terminal, '' for `text`.
        model: Number of the model whose color marks the cell.
        is_best: Print it in bold.
    """

    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    fraction: str = ''
    model: int | None = None
    is_best: bool = False

    @property
    def interval(self) -> str:
        """Ends of the interval in percent, such as '60.6 to 64.9', '' without an interval."""
        if self.low is None or self.high is None:
            return ''
        sign = '+' if self.text[:1] in ('+', '−') else ''
        return f'{100 * self.low:{sign}.1f} to {100 * self.high:{sign}.1f}'.replace('-', '−')

    @property
    def fraction_interval(self) -> str:
        """Ends of the interval as fractions, '' without an interval."""
        if self.low is None or self.high is None:
            return ''
        if self.fraction[:1] in ('+', '-'):
            return f'{_format_signed(self.low)} to {_format_signed(self.high)}'
        return f'{format_number(self.low)} to {format_number(self.high)}'


@dataclass(frozen=True)
class Sheet:
    """Table of results.

    Attributes:
        name: Name of its file, unique in a report.
        caption: Content, units and source.
        columns, rows: Titles and cells.
        folded: Collapse it on a page, as for the numbers behind a figure.
        heading: Subject above the table in a terminal, '' for none.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: bool = False
    heading: str = ''

    def is_numeric(self, column: int) -> bool:
        """Return whether a column has numbers, which are right-aligned."""
        return any(row[column].value is not None for row in self.rows)


def words(text: object) -> Cell:
    return Cell(str(text))


def missing() -> Cell:
    return Cell(MISSING, fraction='-')


def rate(value: 'float | Estimate | None', interval: Sequence[float | None] | None = None) -> Cell:
    """Return a fraction, shown in percent with one decimal; a dash for None."""
    if value is None:
        return missing()
    if isinstance(value, Estimate):
        return rate(value.value, (value.low, value.high))
    low, high = interval or (None, None)
    return Cell(_use_minus(f'{100 * value:.1f}'), value, low, high, format_number(value))


def points(value: 'float | Difference | Estimate | None', interval: Sequence[float | None] | None = None) -> Cell:
    """Return a difference of fractions, shown in percentage points with its sign."""
    if value is None:
        return missing()
    if isinstance(value, (Difference, Estimate)):
        return points(value.value, (value.low, value.high))
    low, high = interval or (None, None)
    text = _use_minus(f'{100 * value:+.1f}').replace('+0.0', '0.0').replace('−0.0', '0.0')
    return Cell(text, value, low, high, _format_signed(value))


def number(value: float | None, digits: int = 3) -> Cell:
    """Return a number that is not a rate, with `digits` significant digits."""
    if value is None:
        return missing()
    return Cell(f'{value:.0f}' if abs(value) >= 10 ** digits else f'{value:.{digits}g}', value)


def count(value: int) -> Cell:
    return Cell(f'{value:,}'.replace(',', ' '), value, fraction=str(value))


def format_number(value: float | None) -> str:
    """Return four decimals, without -0.0000; '-' for None."""
    return '-' if value is None else f'{round(value, 4) + 0:.4f}'


def _format_signed(value: float) -> str:
    return f'{round(value, 4) + 0:+.4f}'


def render_text(sheet: Sheet) -> str:
    """Return a table for a terminal. An interval is in a column '95 %' after its number."""
    columns: list[str] = []
    rows: list[list[str]] = [[] for _ in sheet.rows]
    alignments: list[str] = []
    for index, title in enumerate(sheet.columns):
        cells = [row[index] for row in sheet.rows]
        has_intervals = any(cell.low is not None for cell in cells)
        align = 'right' if sheet.is_numeric(index) else 'left'
        for row, cell in zip(rows, cells, strict=True):
            row += [cell.fraction or cell.text, *([cell.fraction_interval] if has_intervals else [])]
        columns += [title, *(['95 %'] if has_intervals else [])]
        alignments += [align] * (2 if has_intervals else 1)
    text = tabulate(rows, columns, 'plain', disable_numparse=True, colalign=alignments)
    body = '\n'.join(line.rstrip() for line in text.splitlines())
    return f'{sheet.heading}\n{body}' if sheet.heading else body


def render_markdown(sheet: Sheet) -> str:
    """Return a GitHub Markdown table with its caption. Intervals are in brackets."""
    rows = [[_format_cell(cell, '**', '**').replace('|', r'\|') for cell in row] for row in sheet.rows]
    columns = [title.replace('|', r'\|') for title in sheet.columns]
    return f'{tabulate(rows, columns, "pipe", disable_numparse=True, colalign=_align(sheet))}\n\n{sheet.caption}\n'


def render_latex(sheet: Sheet) -> str:
    """Return a LaTeX table for the booktabs package."""
    rows = [[_format_cell(cell, _BOLD, _END) for cell in row] for row in sheet.rows]
    body = tabulate(rows, sheet.columns, 'latex_booktabs', disable_numparse=True, colalign=_align(sheet))
    caption = tabulate([[sheet.caption]], tablefmt='latex').splitlines()[2].strip().removesuffix(r'\\').strip()
    text = '\n'.join([r'\begin{table}', r'\centering', rf'\caption{{{caption}}}',
                      rf'\label{{tab:{sheet.name.replace("_", "-")}}}', body, r'\end{table}', ''])
    for letter, command in _LATEX.items():
        text = text.replace(letter, command)
    return text


def mark_best(cells: Sequence[Cell], *, higher_is_better: bool) -> list[Cell]:
    """Return the cells with the best value marked for bold print. Equal texts are all marked."""
    values = [cell.value for cell in cells if cell.value is not None]
    if len(values) < 2:
        return list(cells)
    best = max(values) if higher_is_better else min(values)
    texts = {cell.text for cell in cells if cell.value == best}
    return [replace(cell, is_best=True) if cell.text in texts else cell for cell in cells]


def _align(sheet: Sheet) -> list[str]:
    return ['right' if sheet.is_numeric(column) else 'left' for column in range(len(sheet.columns))]


def _format_cell(cell: Cell, bold: str, end: str) -> str:
    text = f'{bold}{cell.text}{end}' if cell.is_best else cell.text
    return f'{text} ({cell.interval})' if cell.interval else text


def _use_minus(text: str) -> str:
    """Use a true minus sign, and none for a number rounded to zero."""
    return '0.0' if text == '-0.0' else text.replace('-', '−')
