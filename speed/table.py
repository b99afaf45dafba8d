"""The table of all speed results: results.csv, a row per comparison, and machines.json. Does not import torch."""

import csv
import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
QUICK = HERE.parent / 'work_dirs' / 'bench'  # results of --quick and of bundled images: not committed, not quoted
RESULTS, MACHINES = 'results.csv', 'machines.json'
SECONDS, GIB = 's', 'GiB'
COLUMNS = ('benchmark', 'case', 'setting', 'metric', 'unit', 'ours_median', 'ours_min', 'ours_max', 'ours_runs', 'peer',
           'peer_median', 'peer_min', 'peer_max', 'peer_runs', 'ratio', 'bound', 'date', 'commit', 'machine', 'threads',
           'load')


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of the values of `runs` runs."""

    median: float
    minimum: float
    maximum: float
    runs: int

    @classmethod
    def of(cls, *values: float) -> 'Spread':
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Comparison:
    """One measured quantity of ours and, if there is a peer, of the peer.

    case: what is measured. setting: sizes, model and data. unit: lower is better in `s` and `GiB`. bound: the peer is a
    part of our own work and cannot be beaten.
    """

    case: str
    setting: str
    metric: str
    unit: str
    ours: Spread
    peer: str = ''
    theirs: Spread | None = None
    bound: bool = False

    @property
    def ratio(self) -> float | None:
        """The cost of the peer divided by ours: above 1 is a gain. None if no cost is compared."""
        return self.theirs.median / self.ours.median if self.theirs and self.unit in (SECONDS, GIB) else None


@dataclass(frozen=True)
class Run:
    """Date, commit and machine of a run. The commit ends in '+' if files were changed."""

    date: str
    commit: str
    threads: int
    load: float | None = None
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """Return the GPU, or the name of the CPU if it is known."""
        device = self.machine['device']
        return self.machine.get('cpu', device) if device in ('x86_64', 'aarch64', 'arm64', 'AMD64') else device


@dataclass(frozen=True)
class Entry:
    """Row of the table."""

    benchmark: str
    result: Comparison
    run: Run

    def replaces(self, other: 'Entry') -> bool:
        """Return whether both measure the same on the same type of device."""
        mine, its = self.result, other.result
        return (self.benchmark, mine.case, mine.setting, mine.metric, mine.peer, self.run.machine['device']) == (
            other.benchmark, its.case, its.setting, its.metric, its.peer, other.run.machine['device'])


def read_table(folder: Path = HERE) -> list[Entry]:
    """Return the rows of the table in `folder`, or [] if there is none."""
    if not (folder / RESULTS).is_file():
        return []
    machines = json.loads((folder / MACHINES).read_text())

    def spread(row: Mapping[str, str], side: str) -> Spread | None:
        values = [row[f'{side}_{name}'] for name in ('median', 'min', 'max')]
        return Spread(*map(float, values), int(row[f'{side}_runs'])) if values[0] else None

    with (folder / RESULTS).open(newline='') as file:
        return [Entry(row['benchmark'],
                      Comparison(*(row[name] for name in ('case', 'setting', 'metric', 'unit')), spread(row, 'ours'),
                                 row['peer'], spread(row, 'peer'), bool(row['bound'])),
                      Run(row['date'], row['commit'], int(row['threads']), float(row['load']) if row['load'] else None,
                          machines[row['machine']]))
                for row in csv.DictReader(file)]


def add_to_table(entries: Iterable[Entry], folder: Path) -> Path:
    """Add rows to the table in `folder`. A row replaces an older row of the same comparison on the same device."""
    entries = list(entries)
    rows = [old for old in read_table(folder) if not any(new.replaces(old) for new in entries)] + entries
    rows.sort(key=lambda entry: entry.benchmark)
    machines = {machine_id(entry.run.machine): dict(entry.run.machine) for entry in rows}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MACHINES).write_text(json.dumps(machines, indent=1) + '\n')
    with (folder / RESULTS).open('w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(COLUMNS)
        writer.writerows(map(cells, rows))
    return folder / RESULTS


def machine_id(machine: Mapping[str, Any]) -> str:
    """Return the first eight digits of a hash of a machine and its libraries."""
    return sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:8]


def cells(entry: Entry) -> list[str]:
    """Return the cells of a row in the order of COLUMNS. Numbers have six significant digits."""
    result, run = entry.result, entry.run
    ours, theirs = (Spread(*(float(f'{value:.6g}') for value in astuple(side)[:3]), side.runs) if side else None
                    for side in (result.ours, result.theirs))
    result = replace(result, ours=ours, theirs=theirs)  # so that the ratio is that of the printed values
    values = (entry.benchmark, result.case, result.setting, result.metric, result.unit, *astuple(result.ours),
              result.peer, *(astuple(result.theirs) if result.theirs else [None] * 4), result.ratio,
              'yes' if result.bound else '', run.date, run.commit, machine_id(run.machine), run.threads, run.load)
    return ['' if value is None else f'{value:.6g}' if isinstance(value, float) else str(value) for value in values]
