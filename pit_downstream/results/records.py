"""Records of measured values, one line each in an append-only file."""

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

from pit_downstream.results.condition import Condition
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.jsonl import JsonLines
from pit_downstream.utils.spec import Spec, quote

TOLERANCE = 1e-6  # relative; float32 sums in another order, e.g. with another batch size, differ by less

_DIGEST = re.compile(r'@[0-9a-f]{16}\Z')
_QUOTED_DIGEST = re.compile(r'@[0-9a-f]{16}[\'"]')
_VISIBLE = ('num_classes', 'img_size')  # arguments that the shapes of the tensors determine

_log = logging.getLogger(__name__)

SCHEMA = 1  # of a line of results.jsonl

# (condition, metric), with the layer or with layer and class for metrics that have them
Key = tuple[Condition | str, str] | tuple[Condition | str, str, str] | tuple[Condition | str, str, str, str]


@dataclass(frozen=True)
class Record:
    """The `value` of `metric` of `model` on `dataset` under `condition`, over `count` samples.

    Attributes:
        model, dataset, condition: Spec texts.
        value: A fraction, never a percentage.
        layer: Layer of a per-layer metric ('stage2.block4'), '' for other metrics.
        class_name: Class of a per-class metric, '' for other metrics.
        benchmark: Name of the benchmark that measured it. Other benchmarks may use it, too.
        data_digest: Digest of the images under this condition.
        unreadable: Number of images that could not be read, which `count` does not include.
    """

    model: str
    dataset: str
    condition: str
    metric: str
    value: float
    count: int
    seed: int
    layer: str = ''
    class_name: str = ''
    benchmark: str = ''
    data_digest: str = ''
    unreadable: int = 0

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.condition, self.metric, self.layer, self.class_name

    @property
    def identity(self) -> tuple[str, str, int, str, str, str, str]:
        """Key of the record among those of all models and datasets."""
        return get_model_key(self.model), self.dataset, self.seed, *self.key


@lru_cache(maxsize=4096)
def get_model_key(model: str) -> str:
    """Return the part of a model's name that identifies it.

    Models of one architecture with equal tensors have one key, which contains the digest of the weights but not the
    file name: "pit_s(num_classes=1000, weights='best.pth@0123456789abcdef')" -> "pit_s(weights='@0123456789abcdef')". A
    name without a digest is its own key.
    """
    digest = _extract_digest(model)
    if not digest:
        return model
    spec = Spec.parse(model)
    kwargs = {**dict(spec.kwargs), 'weights': digest}
    if ':' in spec.name:  # the arguments of a function may mean anything
        return str(Spec.of(spec.name, **kwargs))
    rest = {key: value for key, value in kwargs.items() if key not in _VISIBLE}
    return str(Spec.of(spec.name.partition('.')[0], **rest))  # timm's tag, after the dot, names weights


def get_weights_label(model: str) -> str:
    """Return the readable part of a model's weights: a file name, a published name, 'random'; '' without weights."""
    weights = Spec.parse(model).get('weights') if 'weights=' in model else None
    return '' if weights is None else _DIGEST.sub('', str(weights))


def get_weights_digest(model: str) -> str:
    """Return the 16 digits of the digest of a model's weights, '' for a name without one."""
    return _extract_digest(model).removeprefix('@')


def _extract_digest(model: str) -> str:
    """Return '@' and the 16 digits of the weights' digest, '' for a name without a digest."""
    match = _QUOTED_DIGEST.search(model) and _DIGEST.search(str(Spec.parse(model).get('weights')))
    return match[0] if match else ''


class MissingMeasurement(InputError):
    """Error for requested values that were not measured: their `keys` of a `table`, and a `command` or ''."""

    def __init__(self, table: 'Table', keys: Iterable[Key], command: str = ''):
        self.table, self.keys, self.command = table, tuple(keys), command
        metrics = ', '.join(dict.fromkeys(key[1] for key in self.keys))
        names = list(dict.fromkeys(str(key[0]) for key in self.keys))
        shown = ', '.join(names[:6]) + (f' and {len(names) - 6} more' if len(names) > 6 else '')
        super().__init__(f'no {metrics} of {table.model} on {table.dataset} under {shown}'
                         + (f'. To measure it: {command}' if command else ''))


class Table:
    """Records of one model on one dataset, by (condition, metric[, layer[, class]])."""

    def __init__(self, model: str, dataset: str, records: Iterable[Record] = ()):
        self.model, self.dataset = model, dataset
        self._records = {record.key: record for record in merge_records(
            (('', record) for record in records), key=attrgetter('key'))}

    def record(self, key: Key) -> Record:
        if _complete_key(key) not in self._records:
            raise MissingMeasurement(self, [key])
        return self._records[_complete_key(key)]

    def __getitem__(self, key: Key) -> float:
        return self.record(key).value

    def __contains__(self, key: Key) -> bool:
        return _complete_key(key) in self._records

    def __len__(self) -> int:
        return len(self._records)

    @property
    def records(self) -> tuple[Record, ...]:
        return tuple(self._records.values())

    def require(self, keys: Iterable[Key], *, command: str = '') -> None:
        """Raise MissingMeasurement with all missing `keys`. `command` is a suggestion that would measure them."""
        missing = [key for key in keys if key not in self]
        if missing:
            raise MissingMeasurement(self, missing, command)


class ResultStore:
    """An append-only JSON Lines file of records, each with `schema`.

    Records are durable once add() returns: they survive kill -9 and power loss. A torn last line is dropped. The first
    add() creates the file and its folders.
    """

    def __init__(self, path: str | Path):
        self._lines = JsonLines(path)

    @property
    def path(self) -> Path:
        return self._lines.path

    def add(self, *records: Record) -> None:
        """Append all records in one write and wait until they are on the disk. If one is invalid, append none.

        If another process added a value of the same identity in the meantime, the first value is kept. A different
        value is logged as a warning.
        """
        for record in records:
            validate_record(record)
        with self._lines.lock():
            present = {record.identity: record for record in self.records()}
            for record in records:
                kept = present.get(record.identity, record)
                if (kept.value, kept.count) != (record.value, record.count):
                    _log.warning('%s: kept %s of %d samples, which another run has added, not %s of %d, as %s of %s '
                                 'under %s', self.path, kept.value, kept.count, record.value, record.count,
                                 record.metric, quote(record.model), quote(record.condition))
            if fresh := [record for record in records if record.identity not in present]:
                self._lines.append({'schema': SCHEMA, **asdict(record)} for record in fresh)

    def records(self) -> list[Record]:
        """Return all records in file order, [] if the file does not exist."""
        return [record for _, record in self.locate_records()]

    def locate_records(self) -> list[tuple[str, Record]]:
        """Return all records with their location, e.g. 'line 3 of results.jsonl'."""
        return [(f'line {number} of {self.path}', self._parse(number, line))
                for number, line in enumerate(self._lines.read(), 1)]

    def table(self, model: str, dataset: str, *, seed: int | None = None) -> Table:
        """Return the table of one model on one dataset. `seed` is required if there are records of several seeds."""
        wanted = get_model_key(model), dataset
        located = [(location, record) for location, record in self.locate_records()
                   if (get_model_key(record.model), record.dataset) == wanted and seed in (None, record.seed)]
        seeds = sorted({record.seed for _, record in located})
        if len(seeds) > 1:
            raise InputError(f'{self.path} contains {model} on {dataset} with the seeds {seeds}. Choose one of them')
        return Table(model, dataset, merge_records(located))

    def _parse(self, number: int, line: bytes) -> Record:
        try:
            return parse_record(json.loads(line))
        except (ValueError, TypeError) as error:
            if isinstance(error, SchemaError):
                raise InputError(f'line {number} of {self.path} {error}') from error
            names = ', '.join(field.name for field in fields(Record))
            raise InputError(f'line {number} of {self.path} must be a JSON object with {names}, got {quote(line)}. '
                             'Remove or fix that line.') from error


class SchemaError(InputError):
    """Error for a record of another schema."""


def parse_record(row: Mapping[str, Any]) -> Record:
    """Return the record in a line of results.jsonl. Raises SchemaError for another schema, TypeError for other keys."""
    if not isinstance(row, Mapping):
        raise TypeError(f'not an object: {row!r}')
    if row.get('schema') != SCHEMA:
        raise SchemaError(f'has the schema {row.get("schema", "of an earlier version")}, this version reads {SCHEMA}. '
                          'Evaluate again into another --output-dir, or use the version that wrote it.')
    return validate_record(Record(**{key: value for key, value in row.items() if key != 'schema'}))


def merge_records(located: Iterable[tuple[str, Record]], *,
                 key: Callable[[Record], tuple] = attrgetter('identity')) -> list[Record]:
    """Return one record per identity, the first if there are several.

    Values that differ by less than `TOLERANCE` are treated as rounding and counted in a warning. `located` has pairs
    (location, record) as from ResultStore.locate_records. `key` returns the identity of a record.

    Raises:
        InputError: Two values of one identity differ by more, or have different sample counts.
    """
    first: dict[tuple, tuple[str, Record]] = {}
    rounded = []
    for location, record in located:
        first_location, first_record = first.setdefault(key(record), (location, record))
        if (first_record.value, first_record.count) == (record.value, record.count):
            continue
        if first_record.count != record.count or not math.isclose(first_record.value, record.value, rel_tol=TOLERANCE):
            values = ' and '.join(f'{entry.value} ({entry.count} samples{where and f", {where}"})' for where, entry in
                                  ((first_location, first_record), (location, record)))
            raise InputError(f'expected one value of {record.metric} of {record.model} on {record.dataset} under '
                             f'{record.condition}, got {values}; remove one of the lines')
        rounded.append(location)
    if rounded:
        _log.warning('%d numbers have a second value that differs in its last digits; the first counts: %s%s',
                     len(rounded), '; '.join(rounded[:3]), '; ...' if len(rounded) > 3 else '')
    return [record for _, record in first.values()]


def validate_record(record: Record) -> Record:
    """Validate a record and return it.

    Raises:
        TypeError: A field has the wrong type.
        InputError: The value is not finite.
    """
    for field in fields(Record):
        value = getattr(record, field.name)
        expected: Any = (int, float) if field.type is float else field.type
        if not isinstance(value, expected):
            raise TypeError(f'expected {field.type} as {field.name}, got {quote(value)}')
    if not math.isfinite(record.value):
        raise InputError(f'expected a finite number, got {record.value} as {record.metric} of {record.model} under '
                         f'{record.condition}')
    return record


def _complete_key(key: Key) -> tuple[str, str, str, str]:
    condition, metric, *rest = key
    layer, class_name = (*rest, '', '')[:2]
    return str(condition), metric, layer, class_name
