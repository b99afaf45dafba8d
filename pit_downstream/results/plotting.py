"""Figure of results in the layout of their benchmark: a line per row over the columns, or a bar per row."""

import re
from collections.abc import Mapping
from textwrap import shorten, wrap
from typing import TYPE_CHECKING

from pit_downstream.results.intervals import compute_wilson_interval
from pit_downstream.results.layout import RATES, choose_metric, is_fraction, list_columns, make_grid
from pit_downstream.results.records import Record
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.extras import require_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pit_downstream.results.results import Results

Grid = Mapping[tuple[str, str], Record]

MARKERS = 'osv^D<>pP*Xd'
LABEL = 40  # characters of a row's name
TITLE = 64  # characters of a line of the title


def plot_layout(results: 'Results') -> 'Figure':
    """Draw the main metric of a benchmark in its layout.

    With columns, each row is a line over the columns, and a row with a single number, such as clean images, is a dashed
    line across them. Without columns, each row is a bar. Rates have their 95 % intervals (Wilson). A number that was
    not measured is a gap in the line.

    Raises:
        InputError: There is no number in the layout.
        MissingExtraError: matplotlib is not installed.
    """
    require_extra('report')
    from matplotlib.figure import Figure
    layout = results.benchmark.layout
    metric = choose_metric(results, layout)
    grid = make_grid(results, layout, metric)
    if not grid:
        raise InputError(f'no {metric} of {results.model} to draw in the layout of {results.benchmark.name}. Evaluate '
                         'its conditions first.')
    rows = list(dict.fromkeys(row for row, _ in grid))
    height = 3.6 + .22 * (-(-len(rows) // 3)) if layout.columns else 1.2 + .28 * len(rows)
    figure = Figure(figsize=(6.4, height), layout='constrained')
    axes = figure.subplots()
    unit = f'{metric} in percent' if is_fraction(metric) else metric
    if layout.columns:
        _draw_lines(axes, grid, rows, metric)
        axes.set_xlabel(layout.columns)
        axes.set_ylabel(unit)
        if len(rows) > 1:
            figure.legend(loc='outside lower center', ncols=min(3, len(rows)), fontsize='small', frameon=False)
    else:
        _draw_bars(axes, grid, rows, metric)
        axes.set_xlabel(unit)
    subject = results.label if 'dataset' in (layout.rows, layout.columns) else results.subject
    title = f'{results.benchmark.title or results.benchmark.name}: {subject}'
    figure.suptitle(wrap_text(title, TITLE), fontsize='medium')
    return figure


def wrap_text(text: str, characters: int) -> str:
    """Return the text in lines of at most `characters`, broken at spaces and commas."""
    return text if len(text) <= characters else '\n'.join(wrap(re.sub(r',(?=\S)', ', ', text), characters))


def _draw_lines(axes: 'Axes', grid: Grid, rows: list[str], metric: str) -> None:
    """Draw a line per row, with a column at each position."""
    from matplotlib import colormaps
    columns = list_columns(grid)
    colors = colormaps['tab10' if len(rows) <= 10 else 'tab20'].colors  # type: ignore[attr-defined]
    for number, row in enumerate(rows):
        color, label = colors[number % len(colors)], shorten(row.replace('_', ' '), LABEL, placeholder=' …')
        if (row, '') in grid:
            axes.axhline(_scale(metric) * grid[row, ''].value, color=color, linestyle='--', label=label)
            continue
        records = [grid.get((row, column)) for column in columns]
        values = [float('nan') if record is None else _scale(metric) * record.value for record in records]
        below, above = zip(*(_get_error_bar(record, metric) for record in records), strict=True)
        axes.errorbar(range(len(columns)), values, [below, above], color=color, label=label, capsize=2,
                      marker=MARKERS[number % len(MARKERS)], markersize=4, linewidth=1.2, elinewidth=.8)
    axes.set_xticks(range(len(columns)), columns, rotation=45 if sum(map(len, columns)) > 60 else 0)
    axes.grid(axis='y', alpha=.3)


def _draw_bars(axes: 'Axes', grid: Grid, rows: list[str], metric: str) -> None:
    """Draw a horizontal bar per row, the first at the top."""
    records = [grid[row, metric] for row in rows]
    below, above = zip(*(_get_error_bar(record, metric) for record in records), strict=True)
    axes.barh(range(len(rows)), [_scale(metric) * record.value for record in records], xerr=[below, above], capsize=2,
              height=.7)
    axes.set_yticks(range(len(rows)), [shorten(row.replace('_', ' '), LABEL, placeholder=' …') for row in rows])
    axes.invert_yaxis()
    axes.grid(axis='x', alpha=.3)


def _scale(metric: str) -> float:
    return 100. if is_fraction(metric) else 1.


def _get_error_bar(record: Record | None, metric: str) -> tuple[float, float]:
    """Return the lengths of the interval below and above a rate in percent, zero for other metrics."""
    if record is None or not metric.endswith(RATES):
        return 0., 0.
    low, high = compute_wilson_interval(record.value, record.count)
    return max(0., 100 * (record.value - low)), max(0., 100 * (high - record.value))
