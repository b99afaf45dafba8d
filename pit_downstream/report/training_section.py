"""Report section on training: loss and validation, from mmengine's logs."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pit_downstream.utils.jsonl import JsonLines
from pit_downstream.utils.registry import SECTIONS
from pit_downstream.report import plots as charts
from pit_downstream.report.measured import Measured
from pit_downstream.report.parts import (
    MISSING,
    Cell,
    Figure,
    Gap,
    Part,
    Section,
    Sheet,
    format_count,
    number,
    slug,
    words,
)

AXES = ('epoch', 'iter', 'step')
CHIEF = ('mAP', 'mAP_50', 'top1', 'top5', 'accuracy')  # suffixes of the validation metrics that are drawn
COUNTED = ('time', 'data_time', 'memory', 'lr', 'base_lr', *AXES)


@dataclass(frozen=True)
class Training:
    """Log of one work dir. x: 'epoch' or 'iteration'. losses: (x, loss). scores: name -> (x, value).

    steps: the last iteration. seconds: median per iteration, None if not logged.
    """

    name: str
    x: str
    losses: tuple[tuple[float, float], ...]
    scores: Mapping[str, tuple[tuple[float, float], ...]]
    steps: int
    seconds: float | None


@SECTIONS.register('training')
def training_section(measured: Measured) -> Section:
    """Build the section with a panel of the loss and one of the validation for every work dir."""
    runs = [run for folder, files in measured.kept.logs.items() if (run := read_log(folder, files))]
    numbers = {run.name: index for index, run in enumerate(runs)}
    parts: list[Part] = [figure for run in runs for figure in _figures(run)]
    gaps = [] if runs else [Gap('no training log', 'pit-downstream train retinanet_pit_ti --bundled')]
    lead = 'What mmengine logged during training, as logged: fractions, and losses as they were summed.'
    return Section('training', 'Training', lead, (*parts, *([_sheet(runs, numbers)] if runs else [])), tuple(gaps))


def read_log(folder: Path, files: Sequence[Path]) -> Training | None:
    """Read the scalars.json files of a work dir in run order. Return None without a loss or a score.

    Steps that a resumed run repeats replace the earlier ones.
    """
    train: dict[int, Mapping[str, float]] = {}
    scores: dict[int, Mapping[str, float]] = {}
    for path in sorted(files):
        lines = list(_lines(path))
        first = min((int(line['step']) for line in lines if 'loss' in line and 'step' in line), default=None)
        if first is not None:
            train = {step: line for step, line in train.items() if step < first}
        for line in lines:
            if 'loss' in line:
                train[int(line.get('step', len(train)))] = line
            elif 'step' in line and any(key not in COUNTED for key in line):
                scores[int(line['step'])] = line
    if not train and not scores:
        return None
    length = max((step / line['epoch'] for step, line in train.items() if line.get('epoch')), default=0)
    by_epoch = bool(length) and max(scores, default=0) <= max(line.get('epoch', 0) for line in train.values())
    losses = tuple((step / length if by_epoch else step, line['loss']) for step, line in sorted(train.items()))
    times = [line['time'] for line in train.values() if 'time' in line]
    return Training(folder.name, 'epoch' if by_epoch or not train else 'iteration', losses, _scores(scores),
                    max(train, default=0), statistics.median(times) if times else None)


def _lines(path: Path) -> Iterable[Mapping[str, float]]:
    """Yield the lines of a log that are objects. An incomplete last line is dropped."""
    for line in JsonLines(path).read():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield {key: value for key, value in found.items() if isinstance(value, (int, float))}


def _scores(lines: Mapping[int, Mapping[str, float]]) -> dict[str, tuple[tuple[float, float], ...]]:
    names = dict.fromkeys(name for line in lines.values() for name in line if name not in COUNTED)
    return {name: tuple((step, line[name]) for step, line in sorted(lines.items()) if name in line) for name in names}


def _chief(run: Training) -> list[str]:
    chief = [name for name in run.scores if name.endswith(CHIEF)]
    return (chief or list(run.scores))[:4]


def _figures(run: Training) -> Iterable[Figure]:
    source = f'From {run.name}/*/vis_data/scalars.json.'
    if len(run.losses) > 1:
        drawing = charts.curves(f'{run.name}: loss', {'loss': [(x, y, None, None) for x, y in run.losses]}, {'loss': 0},
                                xlabel=run.x, ylabel='loss', unit=False, marked=False)
        points = tuple({'run': run.name, run.x: x, 'loss': y} for x, y in run.losses)
        yield Figure(f'loss_{slug(run.name)}', f'{run.name}: training loss. {source}', drawing, points)
    chief = _chief(run)
    if chief:
        drawing = charts.curves(f'{run.name}: validation', {name: [(x, y, None, None) for x, y in run.scores[name]]
                                                            for name in chief},
                                {name: index for index, name in enumerate(chief)}, xlabel=run.x, ylabel='as logged',
                                unit=False)
        points = tuple({'run': run.name, run.x: x, 'score': name, 'value': y}
                       for name in chief for x, y in run.scores[name])
        yield Figure(f'validation_{slug(run.name)}', f'{run.name}: validation. {source}', drawing, points)


def _sheet(runs: Sequence[Training], numbers: Mapping[str, int]) -> Sheet:
    rows = []
    for run in runs:
        best = next(iter(_chief(run)), None)
        at, value = max(run.scores[best], key=lambda point: point[1]) if best else (None, None)
        rows.append((words(run.name), format_count(run.steps), number(run.losses[0][1] if run.losses else None),
                     number(run.losses[-1][1] if run.losses else None), words(best or MISSING), number(value),
                     Cell(f'{run.x} {at}', at) if best else words(MISSING), number(run.seconds)))
    columns = ('work dir', 'iterations', 'first loss', 'last loss', 'score', 'best', 'at', 'seconds per iteration')
    return Sheet('training', "From mmengine's logs; seconds are the median of the logged values.", columns, tuple(rows))
