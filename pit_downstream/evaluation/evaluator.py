"""Evaluation loop: metrics of a predictor on samples under conditions, with one pass per corruption."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from tqdm import tqdm

from pit_downstream.attacks.base import Predictors
from pit_downstream.results.condition import Condition
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Batch, Metric, Outputs, Predictor
from pit_downstream.results.records import Record, make_records
from pit_downstream.utils.spec import Spec
from pit_downstream.datasets.base import Samples, UnreadableImage
from pit_downstream.evaluation.attacking import attack_curve, check_attack, get_attack, name_condition, radius
from pit_downstream.evaluation.corrupting import arguments, check_corruption, apply_corruption
from pit_downstream.evaluation.data_loading import RawBatch, passes
from pit_downstream.evaluation.distributed import shard_indices, all_gather, rank, raise_on_all_ranks

START = {'cuda': 256, 'cpu': 32}  # initial batch size for 'auto'

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pass:
    """One pass over `samples` for several conditions. `work` has pairs (condition, remaining operations)."""

    samples: Samples
    work: tuple[tuple[Condition, Condition], ...]

    @property
    def title(self) -> str:
        condition = self.work[0][0]
        names = [spec.name for spec in (condition.corruption, condition.attack) if spec]
        return ' + '.join(names) or str(condition)


class Counter(Protocol):
    """Protocol for the results of a pass. `wanted` has the indices of samples that some rank still has to evaluate."""

    wanted: Sequence[int]

    def take(self, batch: RawBatch, work: Sequence[tuple[Condition, Condition]]) -> Iterator[Condition]:
        """Process a batch under each condition of `work`. Yield each condition when it is complete."""

    def values(self) -> Iterator[tuple[Condition, Mapping[str, float], int]]:
        """Yield (condition, values by metric, count) over all ranks. Collective: every rank must exhaust it."""


def measure(predictor: Predictor, samples: Samples, metrics: Sequence[Metric], conditions: Iterable[Condition], *,
            seed: int = 0, **options: Any) -> Iterator[Record]:
    """Yield the records of every condition, all records of a pass when it ends.

    `options` are those of `measure_passes`, such as batch_size and workers.
    """
    for records in measure_passes(predictor, samples, metrics, conditions, seed=seed, **options):
        yield from records


def measure_passes(predictor: Predictor, samples: Samples, metrics: Sequence[Metric], conditions: Iterable[Condition],
                   *, seed: int = 0, done: Collection[tuple[str, str]] = (), batch_size: int | str = 'auto',
                   workers: int = 0, allow_missing: int = 0, show: bool = False,
                   predictors: Predictors | None = None,
                   counter: 'Callable[[Predictor, Pass, Sequence[Metric], int], Counter] | None' = None
                   ) -> Iterator[list[Record]]:
    """Yield the records of each pass.

    The severities of one corruption share a pass, so each image is decoded once for all of them. The epsilons of one
    attack share a pass, too. An image under a condition depends only on (seed, image id, condition).

    Under torch.distributed, every rank evaluates its share of the samples and yields the same records. With a number as
    `batch_size`, ranks take whole batches, so any number of ranks forms the same batches. A model's results may differ
    in their last bits with the batch size.

    Args:
        done: (condition, metric) pairs to skip (`ResultStore.done`).
        batch_size: A number, or 'auto', which starts large and halves when memory runs out.
        workers: Number of decoding processes.
        allow_missing: Number of unreadable images allowed in a pass.
        show: Show a progress bar on a terminal.
        predictors: Builds a predictor by name, for transfer attacks (models.classifiers).
        counter: Builds the counter of a pass from (predictor, pass, metrics, seed), `MetricAccumulators` by default.

    Raises:
        InputError: A pass has more than `allow_missing` unreadable images. The message has their names. Records cover
            the readable images, whose number is their count.
    """
    done = frozenset(done)
    plan = plan_passes(samples, [condition for condition in conditions if any(
        (str(condition), metric.name) not in done for metric in metrics)], predictors)
    if not plan:
        return
    device = torch.device(getattr(predictor, 'device', 'cpu'))
    size = START.get(device.type, START['cpu']) if batch_size == 'auto' else int(batch_size)
    if workers < 0 or size < 1:
        raise InputError(f'expected workers from 0 up and a batch size from 1 up, got {workers} and {size}')
    walker = PassRunner(device, size, halve=batch_size == 'auto')
    said: dict[int, set[str]] = {}
    counter = counter or partial(MetricAccumulators, predictors=predictors)
    counters = [counter(predictor, one, metrics, seed) for one in plan]
    indices = [[count.wanted[place] for place in shard_indices(len(count.wanted), 1 if batch_size == 'auto' else size)]
               for count in counters]
    stream = passes([one.samples for one in plan], indices=indices, batch_size=size, workers=workers,
                    pin=device.type == 'cuda')
    total = sum(len(chosen) * len(one.work) for one, chosen in zip(plan, indices, strict=True))
    with tqdm(total=total, unit='img', smoothing=0.05, disable=None if show and rank() == 0 else True) as bar:
        for one, batches in zip(plan, stream, strict=True):
            count = counters.pop(0)  # free the results after their pass: gigabytes for a detector
            bar.set_description(one.title)
            unreadable, refusal = walker.walk(one, batches, count, bar)
            raise_on_all_ranks(refusal)
            missing = all_gather(unreadable)
            _require_readable(missing, allow_missing)
            if rank() == 0:
                _name_left_out(missing, said.setdefault(id(one.samples), set()))
            yield [record for condition, values, images in count.values() for record in make_records(
                values, model=predictor.name, dataset=samples.name, condition=condition, count=images, seed=seed)
                if (record.condition, record.metric) not in done]


def plan_passes(samples: Samples, conditions: Iterable[Condition], predictors: Predictors | None = None) -> list[Pass]:
    """Group conditions into passes.

    Conditions that differ only in severity share a pass, and so do those that differ only in the attack's epsilon, in
    rising order. Corrupted images stored on disk have one pass each. Raises InputError for a corruption,
    severity or attack that does not exist.
    """
    groups: dict[tuple, Pass] = {}
    for condition in dict.fromkeys(conditions):
        source, rest = samples.at(condition)
        check_corruption(rest.corruption)
        check_attack(rest.attack, predictors)
        key = id(source), *_shared(rest)
        before = groups[key].work if key in groups else ()
        groups[key] = Pass(source, tuple(sorted((*before, (condition, rest)), key=_epsilon)))
    return list(groups.values())


def _shared(condition: Condition) -> tuple[Spec | None, Spec | None]:
    """Return the part of a condition that is equal for all conditions of one pass."""
    corruption, attack = condition.corruption, condition.attack
    if attack is not None:
        return corruption, attack.without('epsilon')
    return corruption and corruption.without('severity', *arguments(corruption)), None


def _epsilon(work: tuple[Condition, Condition]) -> float:
    return radius(work[1].attack) if work[1].attack else 0.


class PassRunner:
    """Runner that passes the batches of a pass to a counter, in parts that fit in memory."""

    def __init__(self, device: torch.device, size: int, *, halve: bool):
        self.device, self.size, self.halve = device, size, halve

    def walk(self, one: Pass, batches: Iterable[RawBatch], counter: Counter, bar: tqdm
             ) -> tuple[list[UnreadableImage], InputError | None]:
        """Return unreadable images, and the error that ended the pass, which must be shared with other ranks first."""
        unreadable: list[UnreadableImage] = []
        try:
            self._walk(one, batches, counter, bar, unreadable)
        except InputError as refusal:
            return unreadable, refusal
        return unreadable, None

    def _walk(self, one: Pass, batches: Iterable[RawBatch], counter: Counter, bar: tqdm,
              unreadable: list[UnreadableImage]) -> None:
        for batch in batches:
            unreadable += batch.unreadable
            on_device = batch.to(self.device)
            for part in self._parts(on_device):
                self._part(part, one.work, counter)
            bar.update((len(batch) + len(batch.unreadable)) * len(one.work))

    def _parts(self, batch: RawBatch) -> Iterator[RawBatch]:
        start = 0
        while start < len(batch):
            end = start + self.size  # self.size may shrink while this part is processed
            yield batch.part(slice(start, end))
            start = end

    def _part(self, batch: RawBatch, work: Sequence[tuple[Condition, Condition]], counter: Counter) -> None:
        """Process all conditions of `work` on a batch. If memory runs out, process the remaining ones on its halves."""
        remaining = list(work)
        try:
            for _ in counter.take(batch, work):
                remaining.pop(0)
        except torch.OutOfMemoryError:
            if not self.halve or len(batch) == 1:
                raise
        if remaining:
            self._smaller(len(batch))
            for part in self._parts(batch):
                self._part(part, remaining, counter)

    def _smaller(self, tried: int) -> None:
        self.size = max(1, tried // 2)
        torch.cuda.empty_cache()
        _log.warning('memory ran out at batch size %d; going on with %d', tried, self.size)


class MetricAccumulators:
    """Metrics of every condition of a pass."""

    def __init__(self, predictor: Predictor, one: Pass, metrics: Sequence[Metric], seed: int, *,
                 predictors: Predictors | None = None):
        self.predictor, self.seed, self.predictors = predictor, seed, predictors
        self.wanted: Sequence[int] = range(len(one.samples))
        self.tallies = {condition: _fresh(metrics) for condition, _ in one.work}

    def take(self, batch: RawBatch, work: Sequence[tuple[Condition, Condition]]) -> Iterator[Condition]:
        attacked = work[0][1].attack is not None
        for condition, outputs, taken in (self._attacked if attacked else self._seen)(batch, work):
            for metric in self.tallies[condition]:
                metric.update(outputs, taken)
            yield condition

    def _seen(self, batch: RawBatch, work: Sequence[tuple[Condition, Condition]]
              ) -> Iterator[tuple[Condition, Outputs, Batch]]:
        every = apply_corruption(batch, [rest for _, rest in work], self.seed)
        for (condition, _), images in zip(work, every, strict=True):
            taken = self.predictor.collate(batch.samples(images))
            with name_condition(condition):
                outputs = self.predictor.predict(taken.images, taken, trace=self._traced(condition))
            yield condition, outputs, taken

    def _attacked(self, batch: RawBatch, work: Sequence[tuple[Condition, Condition]]
                  ) -> Iterator[tuple[Condition, Outputs, Batch]]:
        """Compute all results before the first yield, so that running out of memory cannot split a curve."""
        taken = self.predictor.collate(batch.samples(next(apply_corruption(batch, [work[0][1]], self.seed))))
        with name_condition(Condition(work[0][0].corruption)):
            curve = attack_curve(self.predictor, taken, [get_attack(rest) for _, rest in work], self.seed,
                                 predictors=self.predictors)
        for (condition, _), found in zip(work, curve, strict=True):
            outputs = found.outputs
            if self._traced(condition):
                outputs = self.predictor.predict(found.images, taken, trace=True)
            yield condition, outputs, taken

    def _traced(self, condition: Condition) -> bool:
        return any(metric.needs_trace for metric in self.tallies[condition])

    def values(self) -> Iterator[tuple[Condition, Mapping[str, float], int]]:
        for condition, tally in self.tallies.items():
            for metric in tally:
                values = metric.compute()  # on every rank, even if already done: it may be a collective
                yield condition, values, metric.count


def _fresh(metrics: Sequence[Metric]) -> list[Metric]:
    """Return reset copies of the metrics."""
    copies = deepcopy(list(metrics))
    for metric in copies:
        metric.reset()
    return copies


def _require_readable(unreadable: list[UnreadableImage], allowed: int) -> None:
    if len(unreadable) > allowed:
        shown = ', '.join(f'{one.id} ({one.reason})' for one in unreadable[:8])
        more = f' and {len(unreadable) - 8} more' if len(unreadable) > 8 else ''
        raise InputError(f'expected readable images, got {len(unreadable)} that are not: {shown}{more}; fix them, or '
                         f'leave them out with --allow-missing {len(unreadable)}')


def _name_left_out(unreadable: Iterable[UnreadableImage], said: set[str]) -> None:
    """Log each skipped image once, even if several passes skip it."""
    for one in unreadable:
        if one.id not in said:
            _log.warning('left out: %s', one)
            said.add(one.id)
