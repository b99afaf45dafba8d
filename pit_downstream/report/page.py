"""Report as one self-contained HTML file with style, script, figures and images."""

import re
from datetime import datetime, timezone
from pathlib import Path

from pit_downstream import __version__
from pit_downstream.utils.provenance import get_commit
from pit_downstream.report import plot_style as drawing
from pit_downstream.report.parts import Cell, Heading, Report, Section, Sheet

FILES = Path(__file__).parent / 'page_files'


def as_html(report: Report, *, made: str = '') -> str:
    """Render a report as HTML. made: date and commit for the footer."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    engine = Environment(loader=FileSystemLoader(FILES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                         lstrip_blocks=True)
    engine.globals.update(kind=kind, groups=groups, colors=len(drawing.SERIES), numeric=numeric, folded=folded,
                          svg=lambda figure: drawing.svg(figure.drawing, figure.name, themed=True),
                          data_url=lambda picture: drawing.data_url(picture.data, picture.kind),
                          interval=interval, opening=opening)
    return engine.get_template('page.html').render(
        report=report, made=made, style=(FILES / 'page.css').read_text(encoding='utf-8'),
        script=(FILES / 'page.js').read_text(encoding='utf-8'))


def made_now() -> str:
    """Return the footer of a page."""
    at = get_commit()
    return (f'Made on {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC by pit_downstream {__version__}'
            f'{at and f" at commit {at}"}.')


def kind(part: object) -> str:
    return type(part).__name__.lower()


def groups(section: Section) -> list[list]:
    """Return the parts in order, with consecutive figures or images grouped to be shown side by side."""
    found: list[list] = []
    for part in section.parts:
        same = found and kind(found[-1][0]) == kind(part) and not isinstance(part, (Heading, Sheet))
        found[-1].append(part) if same else found.append([part])
    return found


def opening(caption: str) -> str:
    """Return the subject of a table: the beginning of its caption."""
    return re.split(r'[,:;]|\. ', caption)[0]


def numeric(sheet: Sheet, column: int) -> bool:
    """Return whether a column holds numbers, which are right-aligned."""
    return any(row[column].value is not None for row in sheet.rows)


def folded(sheet: Sheet) -> bool:
    return sheet.folded or len(sheet.rows) > 40


def interval(cell: Cell) -> str:
    """Return the interval of a percentage, such as '60.6 to 64.9'."""
    if cell.low is None or cell.high is None:
        return ''
    ends = (f'{100 * end:+.1f}' if cell.text[0] in '+−' else f'{100 * end:.1f}' for end in (cell.low, cell.high))
    return ' to '.join(end.replace('-', '−') for end in ends)
