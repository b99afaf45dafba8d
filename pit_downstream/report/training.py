"""Report section on training: loss and validation, from mmengine's logs."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pit_downstream.results.results import Gap
from pit_downstream.results.tables import MISSING, Cell, Sheet, count, missing, number, words
from pit_downstream.utils.jsonl import JsonLines
from pit_downstream.report import plots
from pit_downstream.report.data import ReportData
from pit_downstream.report.parts import Figure, Part, Section, make_slug, make_table

MAIN = ('mAP', 'mAP_50', 'top1', 'top5', 'accuracy')  # suffixes of the validation metrics that are drawn
NO_SCORES = ('time', 'data_time', 'memory', 'lr', 'base_lr', 'epoch', 'iter', 'step')

Curve = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class TrainingLog:
    """Log of one work dir.

    Attributes:
        x: 'epoch' or 'iteration'. losses: (x, loss). scores: (x, value) by name.
        steps: The last iteration.
        seconds: Median per iteration, None if not logged.
    """

    name: str
    x: str
    losses: Curve
    scores: Mapping[str, Curve]
    steps: int
    seconds: float | None

    @property
    def main_scores(self) -> list[str]:
        return ([name for name in self.scores if name.endswith(MAIN)] or list(self.scores))[:4]


def build_training(data: ReportData) -> Section:
    """Build the section with a figure of the loss and one of the validation for every work dir."""
    logs = [log for folder, files in data.inputs.logs.items() if (log := read_log(folder, files))]
    parts: list[Part] = [figure for log in logs for figure in _draw_log(log)]
    gaps = () if logs else (Gap('no training log', 'pit-downstream train retinanet_pit_ti --bundled'),)
    lead = 'What mmengine logged during training, as logged: fractions, and losses as they were summed.'
    return Section('training', 'Training', lead, (*parts, _tabulate_logs(logs)), gaps)


def read_log(folder: Path, files: Sequence[Path]) -> TrainingLog | None:
    """Read the scalars.json files of a work dir in run order. Return None without a loss or a score.

    Steps that a resumed run repeats replace the earlier ones.
    """
    train: dict[int, Mapping[str, float]] = {}
    validation: dict[int, Mapping[str, float]] = {}
    for path in sorted(files):
        lines = list(_read_lines(path))
        first = min((int(line['step']) for line in lines if 'loss' in line and 'step' in line), default=None)
        if first is not None:
            train = {step: line for step, line in train.items() if step < first}
        for line in lines:
            if 'loss' in line:
                train[int(line.get('step', len(train)))] = line
            elif 'step' in line and any(key not in NO_SCORES for key in line):
                validation[int(line['step'])] = line
    if not train and not validation:
        return None
    length = max((step / line['epoch'] for step, line in train.items() if line.get('epoch')), default=0)
    by_epoch = bool(length) and max(validation, default=0) <= max(line.get('epoch', 0) for line in train.values())
    losses = tuple((step / length if by_epoch else step, line['loss']) for step, line in sorted(train.items()))
    names = dict.fromkeys(name for line in validation.values() for name in line if name not in NO_SCORES)
    scores = {name: tuple((step, line[name]) for step, line in sorted(validation.items()) if name in line)
              for name in names}
    times = [line['time'] for line in train.values() if 'time' in line]
    return TrainingLog(folder.name, 'epoch' if by_epoch or not train else 'iteration', losses, scores,
                       max(train, default=0), statistics.median(times) if times else None)


def _read_lines(path: Path) -> Iterator[Mapping[str, float]]:
    """Yield the lines of a log that are objects. An incomplete last line is dropped."""
    for line in JsonLines(path).read():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            yield {key: value for key, value in content.items() if isinstance(value, (int, float))}


def _draw_log(log: TrainingLog) -> Iterator[Figure]:
    curves = {'loss': {'loss': log.losses} if len(log.losses) > 1 else {},
              'validation': {name: log.scores[name] for name in log.main_scores}}
    for noun, series in curves.items():
        if series:
            drawing = plots.curves(
                f'{log.name}: {noun}', {name: [(x, y, None, None) for x, y in line] for name, line in series.items()},
                {name: index for index, name in enumerate(series)}, xlabel=log.x, unit=False, marked=noun != 'loss',
                ylabel='loss' if noun == 'loss' else 'as logged')
            points = tuple({'run': log.name, log.x: x, 'score': name, 'value': y}
                           for name, line in series.items() for x, y in line)
            yield Figure(f'{noun}_{make_slug(log.name)}', f'{log.name}: {noun}. From {log.name}/*/vis_data/'
                         'scalars.json.', drawing, points)


def _tabulate_logs(logs: Sequence[TrainingLog]) -> Sheet:
    rows = []
    for log in logs:
        best = next(iter(log.main_scores), None)
        x, value = max(log.scores[best], key=lambda point: point[1]) if best else (None, None)
        first, last = (log.losses[0][1], log.losses[-1][1]) if log.losses else (None, None)
        rows.append({
            'work dir': words(log.name), 'iterations': count(log.steps), 'first loss': number(first),
            'last loss': number(last), 'score': words(best or MISSING), 'best': number(value),
            'at': Cell(f'{log.x} {x}', x) if best else missing(), 'seconds per iteration': number(log.seconds)})
    return make_table('training', "From mmengine's logs; seconds are the median of the logged values.", rows)
