"""Parts of a report: sections of tables, figures, images and gaps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import TYPE_CHECKING, Any, TypeVar

from pit_downstream.results.intervals import Estimate
from pit_downstream.results.results import Gap
from pit_downstream.results.tables import MISSING, Cell, Sheet, missing

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

T = TypeVar('T')


@dataclass(frozen=True)
class Figure:
    """Drawn figure.

    Attributes:
        name: Name of its files, unique in the report.
        caption: Content, units and source.
        drawing: The matplotlib figure.
        points: The numbers in it, one mapping each: {'model': ..., 'epsilon': ..., 'value': ...}.
    """

    name: str
    caption: str
    drawing: 'Drawing'
    points: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Image:
    """Image from a file. format: 'png' or 'jpeg'."""

    name: str
    caption: str
    data: bytes
    format: str


@dataclass(frozen=True)
class Heading:
    """Subject of the parts that follow, in a section with several subjects."""

    text: str


Part = Heading | Sheet | Figure | Image


@dataclass(frozen=True)
class Section:
    """Section of a report. name: of the page anchor. lead: one or two sentences on how to read it."""

    name: str
    title: str
    lead: str
    parts: tuple[Part, ...] = ()
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True)
class Report:
    """Complete report. about: text under the title. sections: in page order. models: labels by number."""

    title: str
    about: str
    sections: tuple[Section, ...]
    models: tuple[str, ...] = ()

    @property
    def gaps(self) -> tuple[Gap, ...]:
        return tuple(dict.fromkeys(gap for section in self.sections for gap in section.gaps))

    def list_parts(self, part_type: type[T]) -> list[T]:
        """Return all parts of one type, in page order."""
        return [part for section in self.sections for part in section.parts if isinstance(part, part_type)]


def make_table(name: str, caption: str, rows: Sequence[Mapping[str, Cell]], *, folded: bool = False) -> Sheet:
    """Return a table of rows {title: cell}, with a dash where a row has no cell."""
    columns = tuple(dict.fromkeys(title for row in rows for title in row))
    return Sheet(name, caption, columns, tuple(tuple(row.get(title, missing()) for title in columns) for row in rows),
                 folded)


def finish_section(section: Section) -> Section:
    """Return a section without empty tables, and without columns that have only dashes or nothing."""
    parts: list[Part] = []
    for part in section.parts:
        if isinstance(part, Sheet):
            shown = [any(cell.text not in ('', MISSING) for cell in column) for column in zip(*part.rows, strict=True)]
            part = replace(part, columns=tuple(compress(part.columns, shown)),
                           rows=tuple(tuple(compress(row, shown)) for row in part.rows))
        if not isinstance(part, Sheet) or part.rows:
            parts.append(part)
    return replace(section, parts=tuple(parts))


def make_points(lines: Mapping[str, Sequence[tuple[float, Estimate]]], x_name: str, *, key: str, **extra: str
                ) -> tuple[dict[str, list[tuple]], tuple[dict[str, Any], ...]]:
    """Return lines of (x, estimate) by label as plots draw them, (x, value, low, high), and as points of a figure."""
    drawn = {label: [(x, one.value, one.low, one.high) for x, one in line] for label, line in lines.items()}
    return drawn, tuple({**extra, key: label, x_name: x, 'value': one.value, 'low': one.low, 'high': one.high}
                        for label, line in lines.items() for x, one in line)


def make_readable(name: str) -> str:
    return name.replace('_', ' ')


def make_slug(label: str) -> str:
    return ''.join(letter if letter.isalnum() else '_' for letter in label).strip('_')
