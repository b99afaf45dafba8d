"""Report inputs: result files found and read under the given paths."""

import csv
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pit_downstream.benchmarks.adversarial import CorrectById
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.jsonl import JsonLines
from pit_downstream.results.records import Record, ResultStore, Table, get_model_key, merge_records, validate_record
from pit_downstream.utils.spec import quote

LARGEST_JSON = 8 << 20  # bytes; a larger file in a folder is an annotation file or a dump, not a summary
PICTURES = {'.png': 'png', '.jpg': 'jpeg', '.jpeg': 'jpeg'}
SPEED_COLUMNS = {'benchmark', 'case', 'ours_median', 'peer_median', 'ratio', 'machine'}
_FIELDS = ('model', 'dataset', 'condition', 'metric', 'value', 'count', 'seed')

Key = tuple[str, str, int]  # model, dataset, seed

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One run of a tool, as in a line of runs.jsonl. folder: the store that it wrote to."""

    folder: Path
    argv: tuple[str, ...]
    started: str
    device: str
    commit: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Kept:
    """Contents of all input files.

    tables: one per model, dataset and seed. sources: the files of each. verdicts: by condition, then by image, whether
    the model was right. logs: mmengine's scalars.json by work dir. speeds: rows of tables of speed results by file.
    images: files by folder.
    """

    tables: Mapping[Key, Table] = field(default_factory=dict)
    sources: Mapping[Key, tuple[Path, ...]] = field(default_factory=dict)
    verdicts: Mapping[Key, Mapping[str, CorrectById]] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()
    logs: Mapping[Path, tuple[Path, ...]] = field(default_factory=dict)
    speeds: Mapping[Path, Sequence[Mapping[str, str]]] = field(default_factory=dict)
    pictures: Mapping[Path, tuple[Path, ...]] = field(default_factory=dict)


def read(paths: Iterable[str | Path], *, apart_from: Iterable[str | Path] = ()) -> Kept:
    """Read files and folders, except for the folders `apart_from`.

    Raises InputError for a missing path, and if there is nothing to report, a line cannot be read, or
    a number has two values.
    """
    given = [Path(path) for path in paths]
    absent = [path for path in given if not path.exists()]
    if absent:
        raise InputError(f'expected results, logs or folders of them, found nothing at {absent[0]}; name what '
                         'is there')
    own = [Path(folder).resolve() for folder in apart_from]
    files = [path for path in find(given) if not set(own) & set(path.resolve().parents)]
    summaries = {}
    for path in files:
        if path.suffix == '.json' and path.parent.name != 'vis_data':
            content = _read_json(path, named=path in given)
            if rows := _summary_rows(path, content):
                summaries[path] = rows
    speeds = {path: table for path in files if path.suffix == '.csv' and (table := _speed_rows(path))}
    stores = [path for path in files if path.suffix == '.jsonl' and not path.name.startswith(('verdicts', 'runs'))]
    tables, sources = _tables({path: ResultStore(path).locate_records() for path in stores} | {
        path: [(f'record {number} of {path}', record) for number, record in enumerate(rows, 1)]
        for path, rows in summaries.items()})
    beside = list(dict.fromkeys(path.parent for path in stores))
    kept = Kept(tables, sources, _verdicts(beside, [key[0] for key in tables]), tuple(_runs(beside)), _grouped(
        [path for path in files if path.suffix == '.json' and path.parent.name == 'vis_data'], up=2), speeds,
        _grouped([path for path in files if path.suffix.lower() in PICTURES]))
    if not (kept.tables or kept.logs or kept.speeds or kept.pictures):
        raise InputError('expected records, logs, benchmarks or images in '
                         f'{", ".join(map(str, given)) or "no path"}, found none; name results.jsonl files, folders '
                         'that hold them, or work dirs')
    return kept


def find(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield each file among `paths` and in their folders once, sorted within a folder, without hidden files."""
    seen = set()
    for path in paths:
        for file in [path] if path.is_file() else _walk(path):
            if file.resolve() not in seen:
                seen.add(file.resolve())
                yield file


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(('.', '__pycache__')))
        for name in sorted(names):
            path = Path(parent, name)
            log = path.parent.name == 'vis_data'
            if not path.is_file():  # a pipe, which would block the reader, or a dangling link
                _log.warning('%s ignored: no regular file', path)
            elif not name.startswith('.') and (name == 'scalars.json' or not (log and path.suffix == '.json')) \
                    and not (path.suffix == '.jsonl' and not name.startswith('results')):
                yield path


def _read_json(path: Path, *, named: bool) -> Any:
    """Parse JSON; return None for a file that is not for a report. A file that the user names must be JSON."""
    if not named and path.stat().st_size > LARGEST_JSON:
        return None
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        if named:
            raise InputError(f'expected JSON in {path}, got none: {error}; leave it out or fix it') from error
        return None


def _speed_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table of speed results, with their devices from machines.json; [] for another CSV."""
    with path.open(newline='', encoding='utf-8', errors='replace') as file:
        columns = file.readline(1 << 12).strip().split(',')
        rows = list(csv.DictReader(file, columns)) if SPEED_COLUMNS <= set(columns) else []
    if not rows:
        return []
    beside = path.with_name('machines.json')
    machines = _read_json(beside, named=True) if beside.is_file() else {}
    return [{**row, 'device': machines.get(row['machine'], {}).get('device', row['machine'])} for row in rows]


def _summary_rows(path: Path, content: Any) -> list[Record]:
    try:
        return list(_record_rows(content))
    except (TypeError, ValueError) as error:
        raise InputError(f'expected records of numbers in {path}: {error}; leave it out or fix it') from error


def _record_rows(content: Any) -> Iterator[Record]:
    """Yield the records in one or more summaries that a tool wrote with --json."""
    if isinstance(content, dict) and isinstance(content.get('records'), list):
        about = {key: content.get(key) for key in ('model', 'dataset')}
        for row in content['records']:
            row = {**about, **row} if isinstance(row, dict) else {}
            if all(name in row for name in _FIELDS):
                yield validate_record(Record(**{name: row[name] for name in _FIELDS}, layer=row.get('layer', '')))
    elif isinstance(content, (dict, list)):
        for inner in content.values() if isinstance(content, dict) else content:
            if isinstance(inner, (dict, list)):
                yield from _record_rows(inner)


def _tables(found: Mapping[Path, Sequence[tuple[str, Record]]]
            ) -> tuple[dict[Key, Table], dict[Key, tuple[Path, ...]]]:
    """Group records of several files into tables. A repeated number counts once."""
    sources: dict[Key, dict[Path, None]] = {}
    grouped: dict[Key, list[Record]] = {}
    names: dict[str, str] = {}  # models with equal tensors share the first name

    def key(record: Record) -> Key:
        return names.setdefault(get_model_key(record.model), record.model), record.dataset, record.seed
    for path, located in found.items():
        for _, record in located:
            sources.setdefault(key(record), {})[path] = None
    for record in merge_records(one for located in found.values() for one in located):
        grouped.setdefault(key(record), []).append(record)
    return ({key: Table(key[0], key[1], records) for key, records in grouped.items()},
            {key: tuple(paths) for key, paths in sources.items()})


def _verdicts(folders: Iterable[Path], models: Iterable[str]) -> dict[Key, dict[str, dict[str, bool]]]:
    """Read verdicts*.jsonl. For repeated images the first verdict counts, as in the records. models: their names."""
    found: dict[Key, dict[str, dict[str, bool]]] = {}
    names = {get_model_key(model): model for model in models}
    for path in (path for folder in folders for path in sorted(folder.glob('verdicts*.jsonl'))):
        for number, line in enumerate(JsonLines(path).read(), 1):
            try:
                chunk = json.loads(line)
                model = names.setdefault(get_model_key(chunk['model']), chunk['model'])
                key = model, chunk['dataset'], chunk['seed']
                right = dict(zip(chunk['ids'], (letter == '1' for letter in chunk['right']), strict=True))
                condition = chunk['condition']
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f'expected the verdicts of some images in line {number} of {path}, got '
                                 f'{quote(line)}; remove or fix that line') from error
            here = found.setdefault(key, {}).setdefault(condition, {})
            here |= {id: stood for id, stood in right.items() if id not in here}
    return found


def _runs(folders: Iterable[Path]) -> Iterator[Run]:
    for folder in folders:
        for line in JsonLines(folder / 'runs.jsonl').read():
            try:
                run = json.loads(line)
                yield Run(folder, tuple(run['argv']), run['started'], run['device'], run['commit'], run['versions'])
            except (ValueError, KeyError, TypeError):  # from another version; the records are valid without it
                continue


def _grouped(paths: Iterable[Path], *, up: int = 0) -> dict[Path, tuple[Path, ...]]:
    """Group by folder, or by the folder `up` levels above it."""
    found: dict[Path, list[Path]] = {}
    for path in paths:
        found.setdefault([path.parent, *path.parent.parents][up], []).append(path)
    return {folder: tuple(sorted(files)) for folder, files in found.items()}
