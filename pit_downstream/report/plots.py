"""Chart types: heat maps, bars, curves, forest plots, and pairs of dots."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pit_downstream.results.plotting import wrap_text
from pit_downstream.report.plot_style import COLD, HEAT, INK, MARKERS, MUTED, PAPER, canvas, color, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEGIBLE = .75  # opacity of a cell above which white text is easier to read than dark text
LEGEND = 48  # characters of a line of the legend that fit below a panel
ROW = 22  # characters of a line left of a panel
TICKS = 40  # characters of all labels that fit below a panel
SHADES = 24  # of a color bar; matplotlib draws 50 and more as pixels
NUMBERS = 12  # columns of a heat map beyond which its cells are too narrow for numbers


@styled
def heat_map(title: str, rows: Sequence[str], columns: Sequence[str], cells: Mapping[tuple[int, int], float], *,
             high: float = 1., shown: bool = True, xlabel: str = '', ylabel: str = '') -> 'Figure':
    """Draw cells by (row, column), more opaque toward `high`, and a color bar. A missing cell shows a dash.

    shown: print the numbers as percentages, with up to 12 columns. Cells below zero have another color.
    """
    rows, side = _wrap_rows(rows, .235 if shown else min(.235, 3.4 / max(1, len(rows))))
    columns = [wrap_text(name, ROW) for name in columns]
    longest = max((len(line) for name in columns for line in name.split('\n')), default=0)
    is_turned = shown and longest * len(columns) > TICKS
    figure, axes = canvas(title, height=max(1.5, side * len(rows) + .75 + (.08 * longest if is_turned else 0)))
    from matplotlib.patches import Rectangle
    for row in range(len(rows)):
        for column in range(len(columns)):
            value = cells.get((row, column))
            depth = 0. if value is None else min(1., abs(value) / high)
            if value and depth:
                axes.add_patch(Rectangle((column - .5, row - .5), 1, 1, facecolor=COLD if value < 0 else HEAT,
                                         alpha=round(depth, 3), linewidth=0))
            if shown and len(columns) <= NUMBERS:
                axes.text(column, row, '–' if value is None else f'{100 * value:.1f}', ha='center',
                          va='center_baseline', fontsize=min(8.5, 60 / len(columns)),
                          color='#ffffff' if depth > LEGIBLE else INK, in_layout=False)
    axes.set(xlim=(-.5, len(columns) - .5), ylim=(len(rows) - .5, -.5), xlabel=xlabel, ylabel=ylabel)
    step = max(1, -(-len(rows) // 16))
    axes.set_xticks(range(0, len(columns), 1 if shown else step), columns[::1 if shown else step],
                    rotation=90 if is_turned else 0)
    axes.set_yticks(range(0, len(rows), 1 if shown else step), rows[::1 if shown else step])
    _bare(axes, 'both')
    if not shown:
        axes.set_aspect('equal')
    _add_color_bar(figure, axes, high, percent=shown, negative=min(cells.values(), default=0) < 0)
    return figure


@styled
def bars(title: str, rows: Sequence[str], series: Mapping[str, Mapping[int, tuple[float, float | None, float | None]]],
         numbers: Mapping[str, int], *, xlabel: str, line: float | None = None) -> 'Figure':
    """Draw horizontal bars: a group per row with a bar per series. series: row -> (value, low, high)."""
    thick = .8 / max(1, len(series))
    rows, side = _wrap_rows(rows, max(.24, .13 * len(series)))
    figure, axes = canvas(title, height=max(1.6, len(rows) * side + .9))
    for index, (name, values) in enumerate(series.items()):
        places = [row - .4 + thick * (index + .5) for row in values]
        widths = [value for value, _, _ in values.values()]
        axes.barh(places, widths, thick * .86, color=color(numbers[name]), label=name, linewidth=0)
        for place, (_, low, high) in zip(places, values.values(), strict=True):
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=MUTED, linewidth=.9, solid_capstyle='butt')
    if line is not None:
        axes.axvline(line, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    _label_rows(axes, rows, xlabel)
    _legend(figure, axes)
    return figure


@styled
def curves(title: str, series: Mapping[str, Sequence[tuple[float, float, float | None, float | None]]],
           numbers: Mapping[str, int], *, xlabel: str, ylabel: str, ticks: Mapping[float, str] | None = None,
           unit: bool = True, marked: bool = True, dashed: str = '') -> 'Figure':
    """Draw lines through (x, y, low, high), with the interval as a band.

    unit: y is a fraction, drawn as 0 to 100 %. dashed: prefix of the names of dashed lines.
    """
    figure, axes = canvas(title)
    scale = 100 if unit else 1
    for name, points in series.items():
        number = numbers[name]
        hue, mark = color(number), MARKERS[(number + number // len(MARKERS)) % len(MARKERS)]
        x, y = [point[0] for point in points], [scale * point[1] for point in points]
        axes.plot(x, y, color=hue, marker=mark if marked else '', label=name, clip_on=False, zorder=3,
                  linestyle='--' if dashed and name.startswith(dashed) else '-')
        known = [(at, low, high) for at, _, low, high in points if low is not None and high is not None]
        if known:
            axes.fill_between([at for at, _, _ in known], [scale * low for _, low, _ in known],
                              [scale * high for _, _, high in known], color=hue, alpha=.13, linewidth=0)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if unit:
        axes.set_ylim(0, 100)
    if ticks:
        axes.set_xticks(list(ticks), list(ticks.values()))
    _bare(axes, 'x')
    _legend(figure, axes)
    return figure


@styled
def forest(title: str, rows: Sequence[str], values: Sequence[tuple[float, float, float, bool]], number: int, *,
           xlabel: str) -> 'Figure':
    """Draw differences with intervals, (value, low, high, paired) each, and a line at zero. Unpaired dots are rings."""
    rows, side = _wrap_rows(rows, .21)
    figure, axes = canvas(title, height=side * len(rows) + .9)
    hue = color(number)
    for row, (value, low, high, whole) in enumerate(values):
        axes.plot([low, high], [row, row], color=hue, linewidth=1.3, solid_capstyle='butt', zorder=2)
        axes.plot(value, row, 'o', color=hue, zorder=3)
        if not whole:
            axes.plot(value, row, 'o', color=PAPER, markersize=2, zorder=4)
    axes.axvline(0, color=INK, linewidth=1)
    _label_rows(axes, rows, xlabel)
    return figure


@styled
def pairs(title: str, rows: Sequence[str], values: Mapping[int, tuple[float | None, float]], number: int, *,
          names: tuple[str, str], xlabel: str) -> 'Figure':
    """Draw two dots on a line per row: before and after. Values are fractions, drawn in percent."""
    rows, side = _wrap_rows(rows, .3)
    figure, axes = canvas(title, height=side * len(rows) + 1)
    for row, (before, after) in values.items():
        if before is not None:
            axes.plot([100 * before, 100 * after], [row, row], color=MUTED, linewidth=1.1, zorder=2)
            axes.plot(100 * before, row, 'o', color='none', markeredgecolor=color(number), markeredgewidth=1.4,
                      label=names[0] if row == min(values) else None, zorder=3)
        axes.plot(100 * after, row, 'o', color=color(number), label=names[1] if row == min(values) else None, zorder=3)
    axes.set_xlim(0, 100)
    _label_rows(axes, rows, xlabel)
    _legend(figure, axes, few=0)
    return figure


def _wrap_rows(rows: Sequence[str], side: float) -> tuple[list[str], float]:
    """Return the names of rows in lines, and the height of a row in inches: at least `side`."""
    wrapped = [wrap_text(name, ROW) for name in rows]
    return wrapped, max([side, *(.15 * (1 + name.count('\n')) for name in wrapped if '\n' in name)])


def _bare(axes: 'Axes', which: Literal['both', 'x', 'y']) -> None:
    """Hide the grid lines and the frame along categories."""
    axes.grid(False, axis=which)
    for side in ('left', 'bottom'):
        axes.spines[side].set_visible(side == 'bottom' and which != 'both')


def _label_rows(axes: 'Axes', rows: Sequence[str], xlabel: str) -> None:
    """Label a row of the panel per name, the first at the top."""
    axes.set(ylim=(len(rows) - .5, -.5), xlabel=xlabel)
    axes.set_yticks(range(len(rows)), rows)
    _bare(axes, 'y')


def _add_color_bar(figure: 'Figure', axes: 'Axes', high: float, *, percent: bool, negative: bool) -> None:
    """Add the scale of a heat map: opacity is proportional to the absolute value."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize, to_rgba
    steps = [step / SHADES for step in range(1 - SHADES if negative else 0, SHADES + 1)]
    colors = ListedColormap([to_rgba(COLD if step < 0 else HEAT, abs(step)) for step in steps])
    scale = (100 if percent else 1) * high
    bar = figure.colorbar(ScalarMappable(Normalize(-scale if negative else 0, scale), colors), ax=axes, fraction=.05,
                          pad=.02)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.set_title('%' if percent else '', fontsize=8)


def _legend(figure: 'Figure', axes: 'Axes', *, few: int = 1) -> None:
    """Draw a legend below the panel if it has more than `few` entries."""
    handles, names = axes.get_legend_handles_labels()
    if len(names) > few:
        columns = 1 if max(map(len, names)) > LEGEND // 2 else 2
        lines = [wrap_text(name, LEGEND // columns) for name in names]
        rows = sum(1 + name.count('\n') for name in lines) / columns
        figure.set_figheight(figure.get_figheight() + .15 * rows)
        figure.legend(handles, lines, loc='outside lower left', ncols=columns, handlelength=2.8)
