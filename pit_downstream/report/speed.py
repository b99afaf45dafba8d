"""Section on speed and memory: what the project's benchmarks measured, against which peer, on what machine."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.registry import SECTIONS
from .measured import Measured
from .parts import MISSING, Cell, Gap, Section, Sheet, number, words

RATIOS = {'times': 'time', 'time_ratio': 'time', 'times_ours': 'time', 'ratio': 'time', 'speedup': 'time',
          'memory_ratio': 'memory'}
UNIT = re.compile(r'(^|_)(ms|s|seconds|gib|mib|per_second)(_|$)')  # in the name of what was measured
SAID = ('model', 'size', 'mode', 'norm', 'epsilon', 'tokens', 'batch', 'height', 'width', 'dtype', 'name', 'case')
PASSED = ('results', 'corruptions', 'cases', 'rows')  # names that say nothing about a case
COLUMNS = ('benchmark', 'case', 'measured', 'ratio of', 'ratio', 'device', 'commit')


@SECTIONS.register('speed')
def speed_section(measured: Measured) -> Section:
    """A row for every comparison in the JSON of a benchmark."""
    rows = tuple(row for path, content in measured.kept.speeds.items() for row in _rows(path, content))
    lead = ('Measured by the scripts in benchmarks/, both sides in one run. Numbers of different machines do not '
            'compare. The JSON of each has versions and every repetition.')
    caption = 'Ratios of time or memory as the benchmark gives them, the peer to this project where there is a peer.'
    sheets = (Sheet('speed', caption, COLUMNS, rows),) if rows else ()
    return Section('speed', 'Speed', lead, sheets, () if rows else (Gap('no speed', 'make bench'),))


def _rows(path: Path, content: Mapping[str, Any]) -> Iterator[tuple[Cell, ...]]:
    about = content['environment']
    place = [words(about.get(key, MISSING)) for key in ('device', 'commit')]
    for case, found in _comparisons(content, ()):
        said = '; '.join(_said(found))
        for key, of in RATIOS.items():
            if _is_number(found.get(key)):
                yield words(path.stem), words(', '.join(case)), words(said), words(of), number(found[key]), *place


def _comparisons(content: Any, case: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Every mapping with a ratio in it, and the names under which it stands."""
    if isinstance(content, Mapping):
        case += tuple(f'{key} {content[key]}' if isinstance(content[key], int) else content[key] for key in SAID
                      if isinstance(content.get(key), (int, str)))
        if any(_is_number(content.get(key)) for key in RATIOS):
            yield case, content
        for key, value in content.items():
            if key != 'environment':
                yield from _comparisons(value, case if key in PASSED else (*case, str(key)))
    elif isinstance(content, list):
        for inner in content:
            yield from _comparisons(inner, case)


def _said(found: Mapping[str, Any]) -> Iterator[str]:
    """The times and sizes in a mapping, and one level below it; not the single repetitions."""
    for key, value in found.items():
        if UNIT.search(key):
            several = value if isinstance(value, Mapping) else {'': value}
            yield from (f'{key.replace("_", " ")}{f" {inner}" if inner else ""} {number(one, 4).text}'
                        for inner, one in several.items() if _is_number(one))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
