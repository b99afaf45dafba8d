"""Per-image values of a run, from which its numbers are computed: verdicts, losses, attention measures, detections."""

import base64
import json
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from pit_downstream.results.condition import Condition
from pit_downstream.results.records import SCHEMA, SchemaError, get_model_key
from pit_downstream.utils.digests import hash_text
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.jsonl import JsonLines
from pit_downstream.utils.spec import quote

FILE, DETECTIONS = 'outcomes.jsonl', 'detections'  # the latter is a folder with one file per condition


@dataclass(frozen=True)
class Identity:
    """Model, dataset and seed of a run. size: number of images of the dataset."""

    model: str
    dataset: str
    seed: int
    size: int = 0

    @property
    def key(self) -> str:
        """Digest that identifies the outcomes: equal for equal weights, in a file of any name."""
        return hash_text(get_model_key(self.model), self.dataset, str(self.seed))


@dataclass(frozen=True)
class Entry:
    """Values of some images under one condition, as they are appended.

    Attributes:
        indices: Dataset indices of the readable images, ascending, int (N,).
        values: By name an array (N, ...), or a list of N items with arrays in them, such as detections.
        unreadable: Indices of images that could not be read.
        costs: Images in forward and backward passes, in total.
        data_digest: Digest of the images under this condition.
    """

    condition: str
    indices: np.ndarray
    values: Mapping[str, Any]
    unreadable: Sequence[int] = ()
    costs: Mapping[str, int] = field(default_factory=dict)
    data_digest: str = ''


class Outcomes:
    """Values of one condition, of all its entries, in the order of the dataset. The first value of an index counts.

    Attributes:
        size: Number of images of the dataset.
        is_recorded: Whether each image has a value or is unreadable, bool (size,).
        costs: Images in forward and backward passes, in total.
        data_digest: Digest of the images under this condition.
    """

    def __init__(self, size: int):
        self.size = size
        self.is_recorded = np.zeros(size, bool)
        self._is_readable = np.zeros(size, bool)
        self.costs: dict[str, float] = {}
        self.data_digest = ''
        self._values: dict[str, Any] = {}  # by name, (size, ...), or a list of items
        self._known: dict[str, np.ndarray] = {}

    def add(self, entry: Entry) -> None:
        """Add an entry. Its costs count by the share of images without a known value."""
        share = 0.
        self.is_recorded[list(entry.unreadable)] = True
        self.is_recorded[entry.indices] = True
        self._is_readable[entry.indices] = True
        self.data_digest = self.data_digest or entry.data_digest
        for name, values in entry.values.items():
            if name not in self._values:
                self._values[name] = np.zeros((self.size, *values.shape[1:]), values.dtype) if isinstance(
                    values, np.ndarray) else [None] * self.size
                self._known[name] = np.zeros(self.size, bool)
            fresh = ~self._known[name][entry.indices]
            share = max(share, float(fresh.mean())) if fresh.size else share
            if isinstance(values, np.ndarray):
                self._values[name][entry.indices[fresh]] = values[fresh]
            else:
                for position in np.flatnonzero(fresh):
                    self._values[name][entry.indices[position]] = values[position]
            self._known[name][entry.indices] = True
        for name, cost in entry.costs.items() if share else ():
            self.costs[name] = self.costs.get(name, 0) + cost * share

    @property
    def unreadable(self) -> np.ndarray:
        """Whether each image could not be read, bool (size,). An image that was read later is not unreadable."""
        return self.is_recorded & ~self._is_readable

    def find_missing(self, names: Collection[str]) -> np.ndarray:
        """Return the images without a value of one of `names`, bool (size,)."""
        missing = np.zeros(self.size, bool)
        for name in names:
            missing |= ~self._known.get(name, np.zeros(self.size, bool))
        return missing

    def is_known(self, name: str) -> np.ndarray:
        """Return the images with a value of this name, bool (size,)."""
        return self._known.get(name, np.zeros(self.size, bool))

    @property
    def names(self) -> list[str]:
        return list(self._values)

    def get_values(self, name: str) -> Any:
        """Return the known values of a name: an array (N, ...), or a list of items."""
        known, values = self._known[name], self._values[name]
        return values[known] if isinstance(values, np.ndarray) else [values[index] for index in np.flatnonzero(known)]

    def get_dense(self, name: str) -> 'np.ndarray | None':
        """Return the values of a name for all images, float (size,), NaN without a value. None for an unknown name."""
        if name not in self._values:
            return None
        return np.where(self._known[name], self._values[name].astype(float), np.nan)


class OutcomeStore:
    """Append-only outcomes in a folder, or in memory without one.

    outcomes.jsonl has one line per condition and block of images; detections/ has one such file per condition, because
    detections are large. append() is durable once it returns. Processes of one run and runs of other models may append
    to one folder at the same time, and files of several machines can be concatenated.
    """

    def __init__(self, folder: str | Path | None):
        self.folder = None if folder is None else Path(folder)
        self._memory: list[tuple[str, Entry]] = []
        self._gathered = 0  # entries in memory that every rank has

    def append(self, identity: Identity, entries: Iterable[Entry]) -> None:
        """Append entries, in one write per file."""
        if self.folder is None:
            self._memory += [(identity.key, entry) for entry in entries]
            return
        files: dict[Path, list[Entry]] = {}
        for entry in entries:
            files.setdefault(self._get_path(identity, entry), []).append(entry)
        for path, some in files.items():
            JsonLines(path).append(format_line(identity, entry) for entry in some)

    def read(self, identity: Identity, conditions: Collection[str] | None = None, *, items: bool = True
             ) -> dict[str, Outcomes]:
        """Return the outcomes by condition, of `conditions` or of all.

        items: Load detections. Without them, only which images have detections is known.
        """
        outcomes: dict[str, Outcomes] = {}
        for entry in self._read_entries(identity, conditions, items):
            outcomes.setdefault(entry.condition, Outcomes(identity.size)).add(entry)
        return outcomes

    def gather(self, all_gather: Callable[[list], list]) -> None:
        """Exchange the entries in memory between ranks. Files are shared already."""
        if self.folder is None:
            self._memory[self._gathered:] = all_gather(self._memory[self._gathered:])
            self._gathered = len(self._memory)

    def list_identities(self) -> list[Identity]:
        """Return the identities with outcomes in the folder."""
        identities: dict[str, Identity] = {}
        for path in self._list_files():
            for number, line in enumerate(JsonLines(path), 1):
                if line[:26] not in identities:
                    content = _parse_line(path, number, line)
                    identities[line[:26].decode()] = Identity(*(content[name] for name in (
                        'model', 'dataset', 'seed', 'size')))
        return list({identity.key: identity for identity in identities.values()}.values())

    def _read_entries(self, identity: Identity, conditions: Collection[str] | None, items: bool) -> Iterator[Entry]:
        if self.folder is None:
            yield from (entry if items else drop_items(entry) for key, entry in self._memory if key == identity.key
                        and (conditions is None or entry.condition in conditions))
            return
        prefix = f'{{"key": "{identity.key}"'.encode()
        for path in self._list_files(identity, conditions):
            for number, line in enumerate(JsonLines(path), 1):
                if not line.startswith(prefix):
                    _check_line(path, number, line)
                    continue
                content = _parse_line(path, number, line)
                if conditions is None or content['condition'] in conditions:
                    yield _make_entry(content, items)

    def _list_files(self, identity: Identity | None = None, conditions: Collection[str] | None = None) -> list[Path]:
        """Return the files with outcomes, or those that can have outcomes of an identity under some conditions."""
        if self.folder is None:
            return []
        detections = sorted((self.folder / DETECTIONS).glob('*.jsonl'))
        if identity is not None:
            names = None if conditions is None else {_name_file(identity, condition) for condition in conditions}
            detections = [path for path in detections if path.name.startswith(identity.key)
                          and (names is None or path.name in names)]
        return [self.folder / FILE, *detections]

    def _get_path(self, identity: Identity, entry: Entry) -> Path:
        assert self.folder is not None
        if any(isinstance(values, list) for values in entry.values.values()):
            return self.folder / DETECTIONS / _name_file(identity, entry.condition)
        return self.folder / FILE


def make_reader(places: Sequence[tuple[OutcomeStore, Identity]]) -> 'Callable[[Condition, str], np.ndarray | None]':
    """Return a function of condition and name that returns the values of all images, None if they are not stored.

    The outcomes are read at the first call, of the first of `places` that has them.
    """
    loaders = [cache(partial(store.read, identity, items=False)) for store, identity in places]

    def read(condition: Condition, name: str) -> np.ndarray | None:
        loaded = (load().get(str(condition)) for load in loaders)
        return next((values for outcomes in loaded if outcomes and (values := outcomes.get_dense(name)) is not None),
                    None)
    return read


def _name_file(identity: Identity, condition: str) -> str:
    """Return the name of the file of a condition's detections: '<key>-fog_severity_3-<digest>.jsonl'."""
    slug = re.sub(r'[^0-9A-Za-z]+', '_', condition).strip('_')[:80]
    return f'{identity.key}-{slug}-{hash_text(condition)[:8]}.jsonl'


def format_line(identity: Identity, entry: Entry) -> dict[str, Any]:
    """Return the object of a line. `key` comes first, so that other lines can be skipped unparsed."""
    packed = {name: _pack_array(values) if isinstance(values, np.ndarray) else _pack_items(values)
              for name, values in entry.values.items()}
    return {'key': identity.key, 'schema': SCHEMA, 'model': identity.model, 'dataset': identity.dataset,
            'seed': identity.seed, 'size': identity.size, 'condition': entry.condition,
            'data_digest': entry.data_digest, 'indices': _pack_indices(entry.indices.tolist()),
            'unreadable': _pack_indices(entry.unreadable), 'costs': dict(entry.costs), 'values': packed}


def drop_items(entry: Entry) -> Entry:
    """Return an entry with an array of zeros in place of every list."""
    return replace(entry, values={name: values if isinstance(values, np.ndarray) else np.zeros(len(values), bool)
                                  for name, values in entry.values.items()})


def _make_entry(content: Mapping[str, Any], items: bool) -> Entry:
    indices = np.array(_unpack_indices(content['indices']), dtype=int)
    values = {name: _unpack(packed) if items or 'dtype' in packed else np.zeros(len(indices), bool)
              for name, packed in content['values'].items()}
    return Entry(str(Condition.parse(content['condition'])), indices, values, _unpack_indices(content['unreadable']),
                 content['costs'], content['data_digest'])


def _parse_line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
        if content.get('schema') != SCHEMA:
            raise SchemaError(f'line {number} of {path} has outcomes of another version. Evaluate again into another '
                              '--output-dir.')
        if content.keys() < {'model', 'dataset', 'seed', 'size', 'condition', 'indices', 'unreadable', 'values'}:
            raise ValueError('keys are missing')
        return content
    except SchemaError:
        raise
    except (ValueError, AttributeError) as error:
        raise InputError(f'line {number} of {path} must have the outcomes of some images, got {quote(line)}. Remove or '
                         'fix that line.') from error


def _check_line(path: Path, number: int, line: bytes) -> None:
    """Raise InputError for a line that is no outcome of another model or dataset."""
    if not (line.startswith(b'{"key": "') and line.endswith(b'}')):
        _parse_line(path, number, line)


def _pack_indices(indices: Iterable[int]) -> list[list[int]]:
    """Return ascending indices as runs [start, stop)."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and runs[-1][1] == index:
            runs[-1][1] = index + 1
        else:
            runs.append([index, index + 1])
    return runs


def _unpack_indices(runs: Iterable[Sequence[int]]) -> list[int]:
    return [index for start, stop in runs for index in range(start, stop)]


def _pack_array(array: np.ndarray) -> dict[str, Any]:
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes())).decode()
    return {'dtype': str(array.dtype), 'shape': list(array.shape), 'data': data}


def _pack_items(items: Sequence[Any]) -> dict[str, Any]:
    text = json.dumps(items, default=lambda array: {'dtype': str(array.dtype), 'shape': list(array.shape),
                                                    'items': array.ravel().tolist()})
    return {'data': base64.b64encode(zlib.compress(text.encode())).decode()}


def _unpack(packed: Mapping[str, Any]) -> Any:
    data = zlib.decompress(base64.b64decode(packed['data']))
    if 'dtype' in packed:
        return np.frombuffer(data, packed['dtype']).reshape(packed['shape'])
    return json.loads(data, object_hook=_restore_array)


def _restore_array(content: dict[str, Any]) -> Any:
    if content.keys() == {'dtype', 'shape', 'items'}:
        return np.array(content['items'], content['dtype']).reshape(content['shape'])
    return content
