"""What a page says, read from its HTML alone."""

from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Told:
    """text: as shown, without the interval. value: data-value. interval: what stands below it."""

    text: str = ''
    value: float | None = None
    interval: str = ''


@dataclass
class Page(HTMLParser):
    """tables: rows of Told by name, the first of them the headings. figures: the letters in every figure, by name.
    shapes: how many strokes and fields each has."""

    html: str
    tables: dict = field(default_factory=dict)
    figures: dict = field(default_factory=dict)
    shapes: Counter = field(default_factory=Counter)
    ids: list = field(default_factory=list)
    links: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__()
        self._table = self._cell = self._figure = None
        self._small = False
        self.feed(self.html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids += [attributes['id']] if 'id' in attributes else []
        self.links += [value for name, value in attributes.items() if name in ('href', 'src', 'xlink:href')]
        if tag == 'table':
            self._table = self.tables.setdefault(attributes['id'].removeprefix('table-'), [])
        elif tag == 'tr':
            self._table.append([])
        elif tag in ('td', 'th'):
            self._cell = Told(value=float(attributes['data-value']) if 'data-value' in attributes else None)
            self._table[-1].append(self._cell)
        elif tag == 'small':
            self._small = True
        elif tag == 'figure':
            self._name = attributes['id'].removeprefix('figure-')
            self._figure = self.figures.setdefault(self._name, [])
        elif self._figure is not None:
            self.shapes[self._name] += tag in ('path', 'use', 'image', 'rect')

    def handle_endtag(self, tag):
        if tag in ('td', 'th'):
            self._cell = None
        elif tag == 'small':
            self._small = False
        elif tag == 'figure':
            self._figure = None

    def handle_data(self, data):
        if self._cell is not None:
            if self._small:
                self._cell.interval += data
            else:
                self._cell.text += data
        elif self._figure is not None and data.strip():
            self._figure.append(data.strip())

    def rows(self, table):
        """The rows of a table by their first cells that are words."""
        head, *rows = self.tables[table]
        return {tuple(cell.text for cell in row if cell.value is None and cell.text not in ('', '–')):
                dict(zip((cell.text for cell in head), row, strict=True)) for row in rows}
