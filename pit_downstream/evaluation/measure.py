"""The one loop: metrics of a predictor on samples under conditions, a pass over the samples for each corruption."""

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from ..core.condition import Condition
from ..core.contracts import Batch, Metric, Outputs, Predictor
from ..core.records import Record, to_records
from ..datasets.base import Samples, UnreadableImage
from .corrupting import check_corruption, corrupted
from .loading import RawBatch, passes
from .ranks import dealt, gathered, rank

START = {'cuda': 256, 'cpu': 32}  # batch size 'auto' begins with

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pass:
    """One walk over `samples` that serves several conditions: each with what is left to be done to the images."""

    samples: Samples
    work: tuple[tuple[Condition, Condition], ...]

    @property
    def title(self) -> str:
        condition = self.work[0][0]
        return condition.corruption.name if condition.corruption else str(condition)


def measure(predictor: Predictor, samples: Samples, metrics: Sequence[Metric], conditions: Iterable[Condition], *,
            seed: int = 0, **options: Any) -> Iterator[Record]:
    """Yield the records of every condition, those of one pass together, as soon as the pass is over.

    options: those of `measure_passes`, among them batch_size and workers.
    """
    for records in measure_passes(predictor, samples, metrics, conditions, seed=seed, **options):
        yield from records


def measure_passes(predictor: Predictor, samples: Samples, metrics: Sequence[Metric], conditions: Iterable[Condition],
                   *, seed: int = 0, done: Collection[tuple[str, str]] = (), batch_size: int | str = 'auto',
                   workers: int = 0, allow_missing: int = 0, show: bool = False) -> Iterator[list[Record]]:
    """Yield the records of one pass after the other.

    The severities of one corruption share a pass, so an image is decoded once for all of them. What an image becomes
    depends on (seed, its id, the condition) alone.
    done: (condition, metric) pairs to leave out (`ResultStore.done`). batch_size: a number, or 'auto', which begins
    large and halves when memory runs out. workers: processes that decode. show: a progress bar, on a terminal.
    Under torch.distributed every rank takes its share of the samples and yields the same records. With a number as
    batch size it takes whole batches: the same are formed by any number of ranks, and a model's results may differ in
    their last bits with the size of a batch.
    Raises ValueError with the names of the unreadable images when a pass finds more than `allow_missing`; records
    rest on the others, as their count says.
    """
    done = frozenset(done)
    plan = plan_passes(samples, [condition for condition in conditions if any(
        (str(condition), metric.name) not in done for metric in metrics)])
    if not plan:
        return
    device = torch.device(getattr(predictor, 'device', 'cpu'))
    size = START.get(device.type, START['cpu']) if batch_size == 'auto' else int(batch_size)
    walker = _Walker(predictor, device, seed, size, halve=batch_size == 'auto')
    indices = [dealt(len(one.samples), 1 if batch_size == 'auto' else size) for one in plan]
    stream = passes([one.samples for one in plan], indices=indices, batch_size=size, workers=workers,
                    pin=device.type == 'cuda')
    total = sum(len(chosen) * len(one.work) for one, chosen in zip(plan, indices, strict=True))
    with tqdm(total=total, unit='img', smoothing=0.05, disable=None if show and rank() == 0 else True) as bar:
        for one, batches in zip(plan, stream, strict=True):
            bar.set_description(one.title)
            tallies = {condition: _fresh(metrics) for condition, _ in one.work}
            unreadable = walker.walk(one, batches, tallies, bar)
            _require_readable(gathered(unreadable), allow_missing)
            yield list(_records(tallies, predictor, samples, seed, done))


def plan_passes(samples: Samples, conditions: Iterable[Condition]) -> list[Pass]:
    """Conditions that differ in severity only share a pass; images that lie on disk corrupted have one each.

    Raises LookupError or ValueError for a corruption or severity that does not exist.
    """
    groups: dict[tuple, Pass] = {}
    for condition in dict.fromkeys(conditions):
        source, rest = samples.at(condition)
        if rest.attack is not None:
            raise ValueError(f'expected conditions without an attack, got {condition}')
        check_corruption(rest.corruption)
        key = id(source), rest.corruption and rest.corruption.without('severity')
        before = groups[key].work if key in groups else ()
        groups[key] = Pass(source, (*before, (condition, rest)))
    return list(groups.values())


class _Walker:
    """Takes the batches of a pass through corruption, model and metrics."""

    def __init__(self, predictor: Predictor, device: torch.device, seed: int, size: int, *, halve: bool):
        self.predictor, self.device, self.seed, self.size, self.halve = predictor, device, seed, size, halve

    def walk(self, one: Pass, batches: Iterable[RawBatch], tallies: dict[Condition, list[Metric]], bar: tqdm
             ) -> list[UnreadableImage]:
        """Returns what could not be read."""
        unreadable: list[UnreadableImage] = []
        for batch in batches:
            unreadable += batch.unreadable
            on_device = batch.to(self.device)
            for part in self._parts(on_device):
                self._part(part, one.work, tallies)
            bar.update((len(batch) + len(batch.unreadable)) * len(one.work))
        return unreadable

    def _parts(self, batch: RawBatch) -> Iterator[RawBatch]:
        start = 0
        while start < len(batch):
            end = start + self.size  # which may shrink while this part is worked on
            yield batch.part(slice(start, end))
            start = end

    def _part(self, batch: RawBatch, work: Sequence[tuple[Condition, Condition]], tallies: dict[Condition, list[Metric]]
              ) -> None:
        """All conditions of `work` on a batch; where memory ends, what is left of them on its halves."""
        remaining = list(work)
        for condition, outputs, taken in self._outputs(batch, work, tallies):
            for metric in tallies[condition]:
                metric.update(outputs, taken)
            remaining.pop(0)
        if remaining:
            self._smaller(len(batch))
            for part in self._parts(batch):
                self._part(part, remaining, tallies)

    def _outputs(self, batch: RawBatch, work: Sequence[tuple[Condition, Condition]],
                 tallies: dict[Condition, list[Metric]]) -> Iterator[tuple[Condition, Outputs, Batch]]:
        """(condition, outputs, batch) one after the other; ends early when memory runs out, if it may."""
        try:
            every = corrupted(batch, [rest for _, rest in work], self.seed)
            for (condition, _), images in zip(work, every, strict=True):
                taken = self.predictor.collate(batch.samples(images))
                trace = any(metric.needs_trace for metric in tallies[condition])
                yield condition, self.predictor.predict(taken.images, taken, trace=trace), taken
        except torch.OutOfMemoryError:
            if not self.halve or len(batch) == 1:
                raise

    def _smaller(self, tried: int) -> None:
        self.size = max(1, tried // 2)
        torch.cuda.empty_cache()
        _log.warning('memory ran out at batch size %d; going on with %d', tried, self.size)


def _fresh(metrics: Sequence[Metric]) -> list[Metric]:
    """Copies of the metrics that have seen nothing."""
    copies = deepcopy(list(metrics))
    for metric in copies:
        metric.reset()
    return copies


def _require_readable(unreadable: list[UnreadableImage], allowed: int) -> None:
    if len(unreadable) > allowed:
        shown = ', '.join(f'{one.id} ({one.reason})' for one in unreadable[:8])
        more = f' and {len(unreadable) - 8} more' if len(unreadable) > 8 else ''
        raise ValueError(f'expected readable images, got {len(unreadable)} that are not: {shown}{more}; mend them, or '
                         f'leave them out with --allow-missing {len(unreadable)}')
    for one in unreadable:
        _log.warning('left out: %s', one)


def _records(tallies: dict[Condition, list[Metric]], predictor: Predictor, samples: Samples, seed: int,
             done: frozenset[tuple[str, str]]) -> Iterator[Record]:
    for condition, tally in tallies.items():
        for metric in tally:
            values = metric.compute()  # on every rank, also for what is done already: it may be a collective
            yield from (record for record in to_records(
                values, model=predictor.name, dataset=samples.name, condition=condition, count=metric.count, seed=seed)
                if (record.condition, record.metric) not in done)
