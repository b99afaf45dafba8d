"""Figure style: palette, font sizes, and colors that a page can replace in dark mode."""

import io
import re
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from pit_downstream.results.plotting import wrap_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = '#1c2128', '#5b6572', '#d9dee4'
PAPER = '#fefefe'
SERIES = ('#0b66b0', '#d1590a', '#0a8a63', '#a8488f', '#8a6d00', '#5560c8', '#4d7f1f', '#b23a48')
HEAT, COLD = '#2467ad', '#c4570f'  # cells of heat maps, drawn with an opacity; COLD is for values below zero
MARKERS = 'osD^vPX*'
# CSS variables of the colors that change in dark mode; page.css defines the values
_VARIABLES = {INK: 'ink', MUTED: 'muted', GRID: 'grid', PAPER: 'paper',
              **{hue: f's{index}' for index, hue in enumerate(SERIES)}}
WIDTH = 3.9  # figure width in inches; 72 page units per inch
LINE = 42  # characters of a title that fit in WIDTH
_STYLE: dict[Any, Any] = {
    'svg.fonttype': 'none', 'svg.hashsalt': 'pit_downstream', 'font.family': 'DejaVu Sans', 'font.size': 9,
    'text.color': INK, 'axes.edgecolor': GRID, 'axes.labelcolor': MUTED,
    'axes.labelsize': 8.5, 'figure.titlesize': 9.5, 'figure.titleweight': 'bold',
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True, 'axes.axisbelow': True,
    'grid.color': GRID, 'grid.linewidth': .7, 'xtick.color': MUTED, 'ytick.color': MUTED, 'xtick.labelsize': 8,
    'ytick.labelsize': 8, 'xtick.major.size': 0, 'ytick.major.size': 0, 'xtick.minor.size': 0,
    'ytick.minor.size': 0, 'lines.linewidth': 1.6, 'lines.markersize': 4, 'legend.frameon': False,
    'legend.fontsize': 8, 'figure.facecolor': 'white'}


def color(number: int) -> str:
    return SERIES[number % len(SERIES)]


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a drawing function to use the style of this module."""
    @wraps(draw)
    def drawn(*args: Any, **options: Any) -> Any:
        import matplotlib
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **options)
    return drawn


def canvas(title: str, *, height: float = 2.9) -> 'tuple[Figure, Axes]':
    """Create a figure with one panel, and the title in lines that fit. Call it from a styled function."""
    from matplotlib.figure import Figure
    title = wrap_text(title, LINE)
    figure = Figure((WIDTH, height + .16 * title.count('\n')), layout='constrained')
    figure.suptitle(title, x=.01, horizontalalignment='left')
    return figure, figure.add_subplot()


@styled
def svg(figure: 'Figure', name: str, *, themed: bool = False) -> str:
    """Return an SVG element or, if not `themed`, a standalone file on a white background.

    themed: colors are variables of the page, and fonts are those of the page. IDs begin with `name`, which must be
    unique.
    """
    out = io.StringIO()
    _save(figure, out, format='svg', transparent=themed, metadata={'Date': None, 'Creator': None})
    text = out.getvalue()
    return _themed(text, name) if themed else text


@styled
def png(figure: 'Figure') -> bytes:
    out = io.BytesIO()
    _save(figure, out, format='png', dpi=200, metadata={'Software': None})
    return out.getvalue()


def _save(figure: 'Figure', out: Any, **options: Any) -> None:
    figure.savefig(out, **options)
    figure.set_layout_engine('none')  # the layout is final; the next file reuses it


def _themed(text: str, name: str) -> str:
    text = text[text.index('<svg'):]
    text = re.sub(r'<metadata>.*?</metadata>', '', text, flags=re.DOTALL)
    text = re.sub(r'<svg [^>]*?viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>', _head, text, count=1, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else '', text)
    text = re.sub(r'(url\(#|href="#)', rf'\g<1>{name}-', text)
    text = re.sub(r"font: (?:(\w+) )?([\d.]+)px [^;\"]*", _font, re.sub(r'font-family: [^;"]*; ?', '', text))
    for hue, variable in _VARIABLES.items():
        text = text.replace(hue, f'var(--{variable})')
    return text.strip()


def _font(found: re.Match) -> str:
    """Split the combined font property of older matplotlib releases into weight and size."""
    return f'font-weight: {found[1] or 400}; font-size: {found[2]}px'


def _head(found: re.Match) -> str:
    width, height = float(found[1]), float(found[2])
    return (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width:g} {height:g}" style="max-width: {1.35 * width:.0f}px">')
