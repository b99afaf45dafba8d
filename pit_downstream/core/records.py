"""Records: every measured number is one line of a file that is only ever appended to."""

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

from pit_downstream.core.condition import Condition
from pit_downstream.core.jsonl import JsonLines
from pit_downstream.core.spec import Spec, quote

TOLERANCE = 1e-6  # relative; sums of float32 in another order, as for other batches, differ by less

_DIGEST = re.compile(r'@[0-9a-f]{16}\Z')
_QUOTED_DIGEST = re.compile(r'@[0-9a-f]{16}[\'"]')
_VISIBLE = ('num_classes', 'img_size')  # arguments that the shapes of the tensors determine

_log = logging.getLogger(__name__)

CONTENT = 'content'  # metric of a record whose place is the digest of the images that its condition was measured on

Key = tuple[Condition | str, str] | tuple[Condition | str, str, str]  # (condition, metric) or also the place


@dataclass(frozen=True)
class Record:
    """One number: `value` of `metric` of `model` on `dataset` under `condition`, over `count` samples.

    model, dataset and condition are Spec texts; value is a fraction, never a percentage; place is where in the model a
    per-layer metric was taken ('stage2.block4'), '' for the others.
    """

    model: str
    dataset: str
    condition: str
    metric: str
    value: float
    count: int
    seed: int
    place: str = ''

    @property
    def key(self) -> tuple[str, str, str]:
        return self.condition, self.metric, self.place

    @property
    def identity(self) -> tuple[str, str, int, str, str, str]:
        """Which number it is, among those of all models and datasets."""
        return model_key(self.model), self.dataset, self.seed, *self.key


@lru_cache(maxsize=4096)
def model_key(model: str) -> str:
    """Return the part of a model's name that identifies it.

    Two names of one architecture with equal tensors have one key: of the weights it holds the digest, not the file
    name: "pit_s(num_classes=1000, weights='best.pth@0123456789abcdef')" -> "pit_s(weights='@0123456789abcdef')".
    A name without a digest is its own key.
    """
    digest = _weights_digest(model)
    if not digest:
        return model
    spec = Spec.parse(model)
    kwargs = {**dict(spec.kwargs), 'weights': digest}
    if ':' in spec.name:  # the arguments of a function may mean anything
        return str(Spec.of(spec.name, **kwargs))
    kept = {key: value for key, value in kwargs.items() if key not in _VISIBLE}
    return str(Spec.of(spec.name.partition('.')[0], **kept))  # timm's tag, behind the point, names weights


def weights_label(model: str) -> str:
    """Return the readable part of a model's weights: a file name, a published name, 'random'; '' without weights."""
    weights = Spec.parse(model).get('weights') if 'weights=' in model else None
    return '' if weights is None else _DIGEST.sub('', str(weights))


def _weights_digest(model: str) -> str:
    """Return '@' and the 16 digits of the weights' digest, '' for a name without."""
    found = _QUOTED_DIGEST.search(model) and _DIGEST.search(str(Spec.parse(model).get('weights')))
    return found[0] if found else ''


class MissingMeasurement(LookupError):
    """A number was wanted that was not measured. keys: which ones."""

    def __init__(self, table: 'Table', keys: Iterable[Key], command: str = ''):
        self.keys = tuple(keys)
        metrics = ', '.join(dict.fromkeys(key[1] for key in self.keys))
        names = list(dict.fromkeys(str(key[0]) for key in self.keys))
        shown = ', '.join(names[:6]) + (f' and {len(names) - 6} more' if len(names) > 6 else '')
        super().__init__(f'no {metrics} of {table.model} on {table.dataset} under {shown}'
                         + (f'; to fill the gap: {command}' if command else ''))


class Table:
    """The records of one model on one dataset by (condition, metric) or (condition, metric, place)."""

    def __init__(self, model: str, dataset: str, records: Iterable[Record] = ()):
        self.model, self.dataset = model, dataset
        self._records = {record.key: record for record in first_values(
            (('', record) for record in records), key=attrgetter('key'))}

    def record(self, key: Key) -> Record:
        if _full(key) not in self._records:
            raise MissingMeasurement(self, [key])
        return self._records[_full(key)]

    def __getitem__(self, key: Key) -> float:
        return self.record(key).value

    def __contains__(self, key: Key) -> bool:
        return _full(key) in self._records

    def __len__(self) -> int:
        return len(self._records)

    @property
    def records(self) -> tuple[Record, ...]:
        return tuple(self._records.values())

    def require(self, keys: Iterable[Key], *, command: str = '') -> None:
        """Raise MissingMeasurement naming all of `keys` that are not here. command: what would fill the gap."""
        missing = [key for key in keys if key not in self]
        if missing:
            raise MissingMeasurement(self, missing, command)


class ResultStore:
    """Append-only JSONL: what add() returned from survives kill -9 and power loss; a torn last line is dropped.

    path: the file, made with its folders by the first add().
    """

    def __init__(self, path: str | Path):
        self._lines = JsonLines(path)

    @property
    def path(self) -> Path:
        return self._lines.path

    def add(self, *records: Record) -> None:
        """Append all in one write and wait until they are on the disk; none where one of them is not `checked`.

        Of a number that another process has added in the meantime the first value stays; a warning names another one.
        """
        for record in records:
            checked(record)
        with self._lines.locked():
            present = {record.identity: record for record in self.records()}
            for record in records:
                kept = present.get(record.identity, record)
                if (kept.value, kept.count) != (record.value, record.count):
                    _log.warning('%s: kept %s of %d samples, which another run has added, not %s of %d, as %s of %s '
                                 'under %s', self.path, kept.value, kept.count, record.value, record.count,
                                 record.metric, quote(record.model), quote(record.condition))
            if fresh := [record for record in records if record.identity not in present]:
                self._lines.append(map(asdict, fresh))

    def records(self) -> list[Record]:
        """All of them in the order of the file; [] where there is no file yet."""
        return [record for _, record in self.located()]

    def located(self) -> list[tuple[str, Record]]:
        """As records(), each with where it is: 'line 3 of results.jsonl'."""
        return [(f'line {number} of {self.path}', self._parse(number, line))
                for number, line in enumerate(self._lines.read(), 1)]

    def done(self, model: str, dataset: str, seed: int) -> frozenset[tuple[str, str]]:
        """The (condition, metric) pairs that need not be measured again."""
        wanted = model_key(model), dataset, seed
        return frozenset((record.condition, record.metric) for record in self.records()
                         if (model_key(record.model), record.dataset, record.seed) == wanted)

    def table(self, model: str, dataset: str, *, seed: int | None = None) -> Table:
        """The table of one model on one dataset. With records of several seeds, `seed` must choose."""
        wanted = model_key(model), dataset
        located = [(place, record) for place, record in self.located()
                   if (model_key(record.model), record.dataset) == wanted and seed in (None, record.seed)]
        seeds = sorted({record.seed for _, record in located})
        if len(seeds) > 1:
            raise ValueError(f'{self.path} holds {model} on {dataset} with the seeds {seeds}; choose one of them')
        return Table(model, dataset, first_values(located))

    def _parse(self, number: int, line: bytes) -> Record:
        try:
            return checked(Record(**json.loads(line)))
        except (ValueError, TypeError) as error:
            names = ', '.join(field.name for field in fields(Record))
            raise ValueError(f'expected a JSON object with {names} in line {number} of {self.path}, '
                             f'got {quote(line)}; remove or fix that line') from error


def first_values(located: Iterable[tuple[str, Record]], *,
                 key: Callable[[Record], tuple] = attrgetter('identity')) -> list[Record]:
    """Return one record for each number: of several the first.

    Values of one number that differ by less than `TOLERANCE` are rounding, and are counted in a warning.
    located: (where it is, record), as of ResultStore.located. key: identifies a number.

    Raises:
        ValueError: Two values of one number really differ, or rest on different numbers of samples.
    """
    first: dict[tuple, tuple[str, Record]] = {}
    rounded = []
    for place, record in located:
        before, kept = first.setdefault(key(record), (place, record))
        if (kept.value, kept.count) == (record.value, record.count):
            continue
        if kept.count != record.count or not math.isclose(kept.value, record.value, rel_tol=TOLERANCE):
            raise ValueError(f'expected one value of {record.metric} of {record.model} on {record.dataset} under '
                             f'{record.condition}, got {kept.value} ({kept.count} samples{before and f", {before}"}) '
                             f'and {record.value} ({record.count} samples{place and f", {place}"}); remove one of the '
                             'lines')
        rounded.append(place)
    if rounded:
        _log.warning('%d numbers have a second value that differs in its last digits; the first counts: %s%s',
                     len(rounded), '; '.join(rounded[:3]), '; ...' if len(rounded) > 3 else '')
    return [record for _, record in first.values()]


def checked(record: Record) -> Record:
    """Raises TypeError unless every field has its type, ValueError where the value is no number."""
    for field in fields(Record):
        value = getattr(record, field.name)
        kind: Any = (int, float) if field.type is float else field.type
        if not isinstance(value, kind):
            raise TypeError(f'expected {field.type} as {field.name}, got {quote(value)}')
    if not math.isfinite(record.value):
        raise ValueError(f'expected a finite number, got {record.value} as {record.metric} of {record.model} under '
                         f'{record.condition}')
    return record


def parse_place(name: str) -> tuple[str, str]:
    """'similarity@stage2.block4' -> ('similarity', 'stage2.block4'); a name without a place has place ''."""
    metric, _, place = name.partition('@')
    return metric, place


def to_records(values: Mapping[str, float], *, model: str, dataset: str, condition: Condition, count: int, seed: int
               ) -> list[Record]:
    """What a Metric computed, as records."""
    named = ((*parse_place(name), float(value)) for name, value in values.items())
    return [Record(model, dataset, str(condition), metric, value, count, seed, place)
            for metric, place, value in named]


def _full(key: Key) -> tuple[str, str, str]:
    condition, metric, *place = key
    return str(condition), metric, place[0] if place else ''
