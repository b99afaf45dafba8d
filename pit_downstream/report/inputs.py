"""Report inputs: result files found and read under the given paths."""

import csv
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pit_downstream.results.condition import Condition
from pit_downstream.results.outcomes import DETECTIONS, FILE, Identity, OutcomeStore, make_reader
from pit_downstream.results.records import (
    SCHEMA,
    Record,
    ResultStore,
    SchemaError,
    Table,
    get_model_key,
    merge_records,
    validate_record,
)
from pit_downstream.results.results import parse_row
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.jsonl import JsonLines

if TYPE_CHECKING:
    import numpy as np

MAX_JSON = 8 << 20  # bytes; a larger file in a folder is an annotation file or a dump, not a summary
FORMATS = {'.png': 'png', '.jpg': 'jpeg', '.jpeg': 'jpeg'}
SPEED_COLUMNS = {'benchmark', 'case', 'ours_median', 'peer_median', 'ratio', 'machine'}

Key = tuple[str, str, int]  # get_model_key(model), dataset, seed
Reader = Callable[[Condition, str], 'np.ndarray | None']  # per-image values

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One run of a tool, as in a line of runs.jsonl. benchmark: its name, with the arguments that were not default."""

    argv: tuple[str, ...]
    started: str
    device: str
    commit: str
    versions: Mapping[str, str]
    benchmark: str = ''
    model: str = ''
    dataset: str = ''


@dataclass(frozen=True)
class Inputs:
    """Contents of all input files.

    Attributes:
        tables: One per model, dataset and seed.
        sources: Files of each table.
        readers: By table, a function that returns per-image values.
        logs: mmengine's scalars.json by work dir.
        speeds: Rows of the tables of speed results, by file.
        images: Image files by folder.
    """

    tables: Mapping[Key, Table] = field(default_factory=dict)
    sources: Mapping[Key, tuple[Path, ...]] = field(default_factory=dict)
    readers: Mapping[Key, Reader] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()
    logs: Mapping[Path, tuple[Path, ...]] = field(default_factory=dict)
    speeds: Mapping[Path, Sequence[Mapping[str, str]]] = field(default_factory=dict)
    images: Mapping[Path, tuple[Path, ...]] = field(default_factory=dict)


def read_inputs(paths: Iterable[str | Path], *, exclude: Iterable[str | Path] = ()) -> Inputs:
    """Read files and folders, except for the folders `exclude`.

    Raises:
        InputError: A path is missing, there is nothing to report, a line cannot be read, or a number has two values.
    """
    given = [Path(path) for path in paths]
    absent = [path for path in given if not path.exists()]
    if absent:
        raise InputError(f'no results, logs or folders of them: {absent[0]}. Pass paths that exist.')
    excluded = {Path(folder).resolve() for folder in exclude}
    files = [path for path in find_files(given) if not excluded & set(path.resolve().parents)]
    stores = [path for path in files if path.suffix == '.jsonl' and not path.name.startswith(('outcomes', 'runs'))
              and path.parent.name != DETECTIONS]
    located = {path: ResultStore(path).locate_records() for path in stores}
    for path in files:
        if path.suffix == '.json' and path.name != 'scalars.json':
            located[path] = [(f'record {number} of {path}', record) for number, record in enumerate(
                _read_summary(path, is_given=path in given), 1)]
    tables, sources = _make_tables(located)
    folders = list(dict.fromkeys(path.parent for path in stores))
    speeds = {path: rows for path in files if path.suffix == '.csv' and (rows := _read_speeds(path))}
    inputs = Inputs(tables, sources, _make_readers(folders), tuple(_read_runs(folders)), _group_files(
        [path for path in files if path.name == 'scalars.json'], levels=2), speeds,
        _group_files([path for path in files if path.suffix.lower() in FORMATS]))
    if not (inputs.tables or inputs.logs or inputs.speeds or inputs.images):
        raise InputError(f'no records, logs, speed results or images in {", ".join(map(str, given)) or "no path"}. '
                         'Pass results.jsonl files, folders with them, or work dirs.')
    return inputs


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
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
        for path in (Path(parent, name) for name in sorted(names) if not name.startswith('.')):
            if not path.is_file():  # a pipe, which would block the reader, or a dangling link
                _log.warning('%s ignored: no regular file', path)
            elif path.suffix == '.json':
                if (path.name == 'scalars.json') == (path.parent.name == 'vis_data'):
                    yield path
            elif path.suffix != '.jsonl' or path.name.startswith('results'):
                yield path


def _read_json(path: Path, *, is_given: bool) -> Any:
    """Parse JSON; return None for a file that is not for a report. A file that the user passes must be JSON."""
    if not is_given and path.stat().st_size > MAX_JSON:
        return None
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        if is_given:
            raise InputError(f'no JSON in {path}: {error}. Leave it out or fix it.') from error
        return None


def _read_speeds(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table of speed results, with their devices from machines.json; [] for another CSV."""
    with path.open(newline='', encoding='utf-8', errors='replace') as file:
        columns = file.readline(1 << 12).strip().split(',')
        rows = list(csv.DictReader(file, columns)) if SPEED_COLUMNS <= set(columns) else []
    machines = {}
    if rows and path.with_name('machines.json').is_file():
        machines = _read_json(path.with_name('machines.json'), is_given=True)
    return [{**row, 'device': machines.get(row['machine'], {}).get('device', row['machine'])} for row in rows]


def _read_summary(path: Path, *, is_given: bool) -> list[Record]:
    """Return the records in the file of --json."""
    try:
        return list(_iterate_records(_read_json(path, is_given=is_given)))
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f'no records of numbers in {path}: {error}. Leave it out or fix it.') from error


def _iterate_records(content: Any) -> Iterator[Record]:
    """Yield the records in one or more summaries that a tool wrote with --json."""
    if isinstance(content, dict) and isinstance(content.get('records'), list):
        for row in content['records']:
            if isinstance(row, dict) and {'condition', 'metric', 'value'} <= row.keys():
                if row.get('schema') != SCHEMA:
                    raise SchemaError(f'schema {row.get("schema", "of an earlier version")}, this version reads '
                                      f'{SCHEMA}')
                yield validate_record(parse_row(row))
    elif isinstance(content, (dict, list)):
        for inner in content.values() if isinstance(content, dict) else content:
            if isinstance(inner, (dict, list)):
                yield from _iterate_records(inner)


def _make_tables(located: Mapping[Path, Sequence[tuple[str, Record]]]
                 ) -> tuple[dict[Key, Table], dict[Key, tuple[Path, ...]]]:
    """Group records of several files into tables. A repeated number counts once.

    Models with equal tensors share a table, with the first name.
    """
    sources: dict[Key, dict[Path, None]] = {}
    grouped: dict[Key, list[Record]] = {}
    for path, pairs in located.items():
        for _, record in pairs:
            sources.setdefault(record.identity[:3], {})[path] = None
    for record in merge_records(pair for pairs in located.values() for pair in pairs):
        grouped.setdefault(record.identity[:3], []).append(record)
    return ({key: Table(records[0].model, key[1], records) for key, records in grouped.items()},
            {key: tuple(paths) for key, paths in sources.items()})


def _make_readers(folders: Iterable[Path]) -> dict[Key, Reader]:
    """Return a function per table that reads per-image values when they are needed."""
    stored: dict[Key, list[tuple[OutcomeStore, Identity]]] = {}
    for store in (OutcomeStore(folder) for folder in folders if (folder / FILE).exists()):
        for identity in store.list_identities():
            key = get_model_key(identity.model), identity.dataset, identity.seed
            stored.setdefault(key, []).append((store, identity))
    return {key: make_reader(several) for key, several in stored.items()}


def _read_runs(folders: Iterable[Path]) -> Iterator[Run]:
    for folder in folders:
        for line in JsonLines(folder / 'runs.jsonl').read():
            try:
                run = json.loads(line)
                yield Run(tuple(run['argv']), run['started'], run['device'], run['commit'], run['versions'],
                          run.get('benchmark', ''), run.get('model', ''), run.get('dataset', ''))
            except (ValueError, KeyError, TypeError):  # from another version; the records are valid without it
                continue


def _group_files(paths: Iterable[Path], *, levels: int = 0) -> dict[Path, tuple[Path, ...]]:
    """Group by folder, or by the folder `levels` above it."""
    groups: dict[Path, list[Path]] = {}
    for path in paths:
        groups.setdefault([path.parent, *path.parent.parents][levels], []).append(path)
    return {folder: tuple(sorted(files)) for folder, files in groups.items()}
