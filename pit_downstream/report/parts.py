"""Parts of a report: sections of tables, figures, images and gaps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class Cell:
    """Cell of a table. text: as shown. value: exact, a fraction if the text is a percentage; None for words.

    low, high: ends of the 95 % interval, if any. model: number of the model whose color marks the cell.
    """

    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    model: int | None = None


@dataclass(frozen=True)
class Sheet:
    """Table of the page. name: of its file, unique in the report. caption: content, units, source.

    folded: collapsed by default, as for the numbers behind a figure.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """Drawn figure. name, caption: as in Sheet. drawing: a matplotlib figure.

    points: the numbers in it, one mapping each, {'model': ..., 'epsilon': ..., 'value': ...}.
    """

    name: str
    caption: str
    drawing: 'Drawing'
    points: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Picture:
    """Image from a file. data: its bytes. kind: 'png' or 'jpeg'."""

    name: str
    caption: str
    data: bytes
    kind: str


@dataclass(frozen=True)
class Gap:
    """Missing measurement, and the command that fills it."""

    what: str
    command: str


@dataclass(frozen=True)
class Heading:
    """Subject of the parts that follow, in a section with several subjects."""

    text: str


Part = Heading | Sheet | Figure | Picture


@dataclass(frozen=True)
class Section:
    """Section of a report. name: in SECTIONS, and the page anchor. lead: one or two sentences on how to read it."""

    name: str
    title: str
    lead: str
    parts: tuple[Part, ...] = ()
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True)
class Report:
    """Complete report. about: text under the title. sections: not empty, in page order. models: names by number."""

    title: str
    about: str
    sections: tuple[Section, ...]
    models: tuple[str, ...] = ()

    @property
    def gaps(self) -> tuple[Gap, ...]:
        return tuple(dict.fromkeys(gap for section in self.sections for gap in section.gaps))

    def parts(self, kind: type) -> list[Any]:
        """Return all parts of one type, in page order."""
        return [part for section in self.sections for part in section.parts if isinstance(part, kind)]


MISSING = '–'


def words(text: object) -> Cell:
    return Cell(str(text))


def missing() -> Cell:
    return Cell(MISSING)


def percent(value: float | None, interval: Sequence[float | None] | None = None) -> Cell:
    """Format a fraction as a percentage with one decimal; '–' for None."""
    if value is None:
        return missing()
    low, high = interval or (None, None)
    return Cell(_minus(f'{100 * value:.1f}'), value, low, high)


def points(value: float | None, interval: Sequence[float | None] | None = None) -> Cell:
    """Format a difference of fractions in percentage points, with its sign."""
    if value is None:
        return missing()
    low, high = interval or (None, None)
    return Cell(_minus(f'{100 * value:+.1f}').replace('+0.0', '0.0'), value, low, high)


def number(value: float | None, digits: int = 3) -> Cell:
    """Format a number that is not a rate, with `digits` significant digits."""
    if value is None:
        return missing()
    return Cell(f'{value:.0f}' if abs(value) >= 10 ** digits else f'{value:.{digits}g}', value)


def format_count(value: int) -> Cell:
    return Cell(f'{value:,}'.replace(',', ' '), value)


def readable(name: str) -> str:
    return name.replace('_', ' ')


def slug(label: str) -> str:
    return ''.join(letter if letter.isalnum() else '_' for letter in label).strip('_')


def _minus(text: str) -> str:
    """Use a true minus sign, and none for a number rounded to zero."""
    return '0.0' if text == '-0.0' else text.replace('-', '−')
