"""Report as one self-contained HTML file with style, script, figures and images."""

import re
from base64 import b64encode
from datetime import datetime, timezone
from pathlib import Path

from pit_downstream import __version__
from pit_downstream.results.tables import Sheet
from pit_downstream.utils.provenance import get_commit
from pit_downstream.report import plot_style
from pit_downstream.report.parts import Heading, Report, Section

FILES = Path(__file__).parent / 'page_files'
MAX_ROWS = 40  # a longer table is collapsed


def render_page(report: Report, *, made: str = '') -> str:
    """Render a report as HTML. made: date and commit for the footer."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    engine = Environment(loader=FileSystemLoader(FILES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                         lstrip_blocks=True)
    engine.globals.update(get_type=get_type, group_parts=group_parts, colors=len(plot_style.SERIES),
                          is_folded=lambda sheet: sheet.folded or len(sheet.rows) > MAX_ROWS,
                          svg=lambda figure: plot_style.svg(figure.drawing, figure.name, themed=True),
                          data_url=lambda image: f'data:image/{image.format};base64,{b64encode(image.data).decode()}',
                          get_subject=lambda caption: re.split(r'[,:;]|\. ', caption)[0])
    return engine.get_template('page.html').render(
        report=report, made=made, style=(FILES / 'page.css').read_text(encoding='utf-8'),
        script=(FILES / 'page.js').read_text(encoding='utf-8'))


def describe_origin() -> str:
    """Return the footer of a page."""
    commit = get_commit()
    return (f'Made on {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC by pit_downstream {__version__}'
            f'{commit and f" at commit {commit}"}.')


def get_type(part: object) -> str:
    return type(part).__name__.lower()


def group_parts(section: Section) -> list[list]:
    """Return the parts in order, with consecutive figures or images grouped to be shown side by side."""
    groups: list[list] = []
    for part in section.parts:
        is_same = groups and get_type(groups[-1][0]) == get_type(part) and not isinstance(part, (Heading, Sheet))
        groups[-1].append(part) if is_same else groups.append([part])
    return groups
