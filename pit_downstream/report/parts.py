"""What a report is made of: sections of tables, figures, images and gaps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class Cell:
    """One place of a table. text: as shown. value: exact, a fraction where the text is a percentage; None for words.

    low, high: the ends of its 95 % interval where it has one. model: the number of the model whose color marks it.
    """

    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    model: int | None = None


@dataclass(frozen=True)
class Sheet:
    """A table of the page. name: of its file, unique in the report. caption: what, units, source.

    folded: shown only when asked for, as the numbers behind a figure are.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """A drawn figure. name, caption: as of Sheet. drawing: matplotlib's.

    points: the numbers in it, one mapping each, {'model': ..., 'epsilon': ..., 'value': ...}.
    """

    name: str
    caption: str
    drawing: 'Drawing'
    points: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Picture:
    """An image that lay in a file. data: its bytes. kind: 'png' or 'jpeg'."""

    name: str
    caption: str
    data: bytes
    kind: str


@dataclass(frozen=True)
class Gap:
    """What was not measured, and the command that measures it."""

    what: str
    command: str


@dataclass(frozen=True)
class Heading:
    """What the parts that follow are about, where a section has several."""

    text: str


Part = Heading | Sheet | Figure | Picture


@dataclass(frozen=True)
class Section:
    """name: of SECTIONS, and the anchor on the page. lead: one or two sentences on how to read it."""

    name: str
    title: str
    lead: str
    parts: tuple[Part, ...] = ()
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True)
class Report:
    """about: what stands under the title. sections: in their order on the page, none of them empty. models: their names
    by their numbers."""

    title: str
    about: str
    sections: tuple[Section, ...]
    models: tuple[str, ...] = ()

    @property
    def gaps(self) -> tuple[Gap, ...]:
        return tuple(dict.fromkeys(gap for section in self.sections for gap in section.gaps))

    def parts(self, kind: type) -> list[Any]:
        """All parts of one kind, in their order on the page."""
        return [part for section in self.sections for part in section.parts if isinstance(part, kind)]


MISSING = '–'


def words(text: object) -> Cell:
    return Cell(str(text))


def missing() -> Cell:
    return Cell(MISSING)


def percent(value: float | None, interval: Sequence[float] | None = None) -> Cell:
    """A fraction as a percentage with one decimal; '–' for None."""
    if value is None:
        return missing()
    return Cell(_minus(f'{100 * value:.1f}'), value, *(interval or (None, None)))


def points(value: float | None, interval: Sequence[float] | None = None) -> Cell:
    """A difference of fractions in percentage points, with its sign."""
    if value is None:
        return missing()
    return Cell(_minus(f'{100 * value:+.1f}').replace('+0.0', '0.0'), value, *(interval or (None, None)))


def number(value: float | None, digits: int = 3) -> Cell:
    """A number that is no rate, with so many significant digits."""
    if value is None:
        return missing()
    return Cell(f'{value:.0f}' if abs(value) >= 10 ** digits else f'{value:.{digits}g}', value)


def whole(value: int) -> Cell:
    return Cell(f'{value:,}'.replace(',', ' '), value)


def readable(name: str) -> str:
    return name.replace('_', ' ')


def slug(label: str) -> str:
    return ''.join(letter if letter.isalnum() else '_' for letter in label).strip('_')


def _minus(text: str) -> str:
    """A number with a true minus, and without one where it is rounded to zero."""
    return '0.0' if text == '-0.0' else text.replace('-', '−')
