"""Report section on speed and memory: results of the project's benchmarks, with their peers and machines."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pit_downstream.utils.registry import SECTIONS
from pit_downstream.report.measured import Measured
from pit_downstream.report.parts import MISSING, Cell, Gap, Section, Sheet, number, words

RATIOS = {'times': 'time', 'time_ratio': 'time', 'times_ours': 'time', 'ratio': 'time', 'memory_ratio': 'memory'}
UNIT = re.compile(r'(^|_)(ms|s|seconds|median|gib|mib|per_second)(_|$)')  # matches names of measured quantities
SAID = ('model', 'size', 'mode', 'norm', 'epsilon', 'tokens', 'batch', 'height', 'width', 'dtype', 'name', 'case')
PASSED = ('results', 'corruptions', 'cases', 'rows')  # names that are not part of a case
COLUMNS = ('benchmark', 'case', 'measured', 'ratio of', 'ratio', 'device', 'commit')
SUMMARY = 'README.md'  # in speed/, with the summary table
TIMES = 'times'  # the numeric column of that table


@SECTIONS.register('speed')
def speed_section(measured: Measured) -> Section:
    """Build the section with the summary table of the benchmarks, if available, and every comparison in their JSON."""
    speeds = measured.kept.speeds
    sheets = [sheet for index, folder in enumerate(dict.fromkeys(path.parent for path in speeds), 1)
              if (sheet := _summary(folder / SUMMARY, f'speed_summary_{index}'))]
    rows = tuple(row for path, content in speeds.items() for row in _rows(path, content))
    caption = 'Ratios of time or memory as each benchmark gives them. Its JSON has versions and every repetition.'
    sheets += [Sheet('speed', caption, COLUMNS, rows, folded=bool(sheets))] if rows else []
    lead = ('Measured by the scripts in speed/, both sides in one run. Numbers of different machines do not '
            'compare.')
    return Section('speed', 'Speed', lead, tuple(sheets), () if sheets else (Gap('no speed', 'make bench'),))


def _summary(path: Path, name: str) -> Sheet | None:
    """Return the first table of a Markdown file that has a column of times."""
    lines = path.read_text(encoding='utf-8').splitlines() if path.is_file() else []
    tables = [index for index, line in enumerate(lines) if line.startswith('|') and TIMES in _split(line)]
    if not tables:
        return None
    columns, rows = _split(lines[tables[0]]), []
    for line in lines[tables[0] + 2:]:
        cells = _split(line)
        if not line.startswith('|') or len(cells) != len(columns):
            break
        rows.append(tuple(_times(cell) if column == TIMES else words(cell)
                          for column, cell in zip(columns, cells, strict=True)))
    caption = f"The peer's time or memory divided by ours, from {path.parent.name}/{path.name}: above 1 is a gain."
    return Sheet(name, caption, tuple(columns), tuple(rows))


def _split(line: str) -> list[str]:
    """Return the cells of a line of Markdown, without links and emphasis."""
    plain = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', line).replace('**', '').replace('`', '')
    return [cell.strip() for cell in plain.strip().strip('|').split('|')]


def _times(text: str) -> Cell:
    found = re.match(r'[\d.]+', text)
    return Cell(text, float(found[0]) if found else None)


def _rows(path: Path, content: Mapping[str, Any]) -> Iterator[tuple[Cell, ...]]:
    for case, found, about in _comparisons(content, (), {}):
        place = [words(about.get(key, MISSING)) for key in ('device', 'commit')]
        said = words('; '.join(_said(found)))
        for key, of in RATIOS.items():
            several = found[key] if isinstance(found.get(key), Mapping) else {'': found.get(key)}
            for inner, ratio in several.items():
                if _is_number(ratio):
                    yield (words(path.stem), words(', '.join(filter(None, (*case, inner)))), said, words(of),
                           number(ratio), *place)


def _comparisons(content: Any, case: tuple[str, ...], about: Mapping[str, Any]
                 ) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any], Mapping[str, Any]]]:
    """Yield every mapping with a ratio, the names that lead to it, and its environment."""
    if isinstance(content, Mapping):
        about = content.get('environment', about)
        case += tuple(f'{key} {content[key]}' if isinstance(content[key], int) else content[key] for key in SAID
                      if isinstance(content.get(key), (int, str)))
        if content.keys() & RATIOS.keys():
            yield case, content, about
        for key, value in content.items():
            if key not in ('environment', *RATIOS):
                yield from _comparisons(value, case if key in PASSED else (*case, str(key)), about)
    elif isinstance(content, list):
        for inner in content:
            yield from _comparisons(inner, case, about)


def _said(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the times and sizes in a mapping and one level below it, without single repetitions."""
    for key, value in found.items():
        if UNIT.search(key):
            several = value if isinstance(value, Mapping) else {'': value}
            yield from (f'{key.replace("_", " ")}{f" {inner}" if inner else ""} {number(one, 4).text}'
                        for inner, one in several.items() if _is_number(one))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
