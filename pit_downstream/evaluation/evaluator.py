"""The evaluation loop: every block of images is decoded once and evaluated under all conditions."""

import logging
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pit_downstream.attacks.base import Predictors
from pit_downstream.datasets.base import LabeledSamples, Samples, UnreadableImage
from pit_downstream.evaluation.attacking import (
    AttackResult,
    KnownOutcomes,
    attack_curve,
    check_attack,
    get_attack,
    get_radius,
    implies_success,
    is_same_curve,
    name_condition,
)
from pit_downstream.evaluation.corrupting import apply_corruption, arguments, check_corruption
from pit_downstream.evaluation.data_loading import Block, RawBatch, load_blocks
from pit_downstream.evaluation.distributed import (
    FailureFlag,
    all_gather,
    broadcast,
    raise_on_all_ranks,
    rank,
    shard_indices,
    world,
)
from pit_downstream.evaluation.image_export import Gallery
from pit_downstream.evaluation.progress import Progress
from pit_downstream.results.condition import Condition
from pit_downstream.results.outcomes import Entry, Identity, Outcomes, OutcomeStore, drop_items
from pit_downstream.results.records import Record, ResultStore, Table
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Batch, Metric, MetricValue, NonFiniteOutputs, Predictor
from pit_downstream.utils.provenance import collect_provenance, write_provenance
from pit_downstream.utils.spec import Spec

BLOCK = 256  # dataset indices that are decoded and stored together
AUTO_BATCH = {'cuda': 256, 'cpu': 32}  # initial batch size for 'auto'
MIN_UNIT = 16  # smallest number of images that ranks share, with an automatic batch size
BLOCKS_PER_RANK = 4  # fewer blocks are split, so that ranks have equal work
VERDICT = 'top1_error'  # value of an attacked classifier
COSTS = ('forwards', 'backwards')

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Options of an evaluation that do not change its numbers, except for `seed`.

    Attributes:
        seed: Seed of corruptions and attacks. An image under a condition depends only on (seed, image id, condition).
        batch_size: A number, or 'auto', which starts large and halves when memory runs out. A model's outputs may
            differ in their last bits with the batch size.
        workers: Number of decoding processes.
        allow_missing: Number of unreadable images allowed under a condition.
        progress: Show the progress.
        save_images: Folder for attacked images (evaluation.image_export).
        predictors: Builds a predictor by name, for transfer attacks.
        argv: Command of the run, for its provenance.
    """

    seed: int = 0
    batch_size: int | str = 'auto'
    workers: int = 0
    allow_missing: int = 0
    progress: bool = False
    save_images: str | Path | None = None
    predictors: Predictors | None = None
    argv: Sequence[str] = field(default_factory=lambda: tuple(sys.argv))

    def __post_init__(self) -> None:
        if self.workers < 0 or (self.batch_size != 'auto' and int(self.batch_size) < 1):
            raise InputError(f'workers must be 0 or more and batch_size 1 or more, got {self.workers} and '
                             f'{self.batch_size}. Change --workers or --batch-size.')


@dataclass(frozen=True)
class ConditionGroup:
    """Conditions that are evaluated together on the images of one source.

    The severities of one corruption form a group, and so do the epsilons of one attack, in rising order.

    Attributes:
        source: Number of the source.
        work: Pairs of a condition and the operations that remain to be applied to the images of the source.
    """

    source: int
    work: tuple[tuple[Condition, Condition], ...]

    @property
    def is_attack(self) -> bool:
        return self.work[0][1].attack is not None

    @property
    def title(self) -> str:
        condition = self.work[0][0]
        parts = [str(spec) for spec in _get_shared_part(condition) if spec]
        return ' + '.join(parts) or str(condition)


class Store:
    """Records and outcomes in a folder: results.jsonl, outcomes.jsonl, detections/ and runs.jsonl; or in memory."""

    def __init__(self, folder: str | Path | None):
        self.folder = None if folder is None else Path(folder)
        self.outcomes = OutcomeStore(self.folder)
        self._results = None if self.folder is None else ResultStore(self.folder / 'results.jsonl')
        self._memory: dict[tuple, Record] = {}

    def add(self, records: Iterable[Record]) -> None:
        """Append records. The first value of an identity is kept."""
        if self._results is not None:
            self._results.add(*records)
        else:
            for record in records:
                self._memory.setdefault(record.identity, record)

    def get_table(self, model: str, dataset: str, *, seed: int) -> Table:
        """Return the records of one model on one dataset."""
        if self._results is not None:
            return self._results.table(model, dataset, seed=seed)
        wanted = Record(model, dataset, 'clean', '', 0, 0, seed).identity[:3]
        return Table(model, dataset, [record for record in self._memory.values() if record.identity[:3] == wanted])

    def log_run(self, predictor: Predictor, samples: Samples, benchmark: str, options: EvaluationOptions) -> None:
        """Append the provenance of a run to runs.jsonl."""
        if self.folder is not None:
            run = collect_provenance(device=str(getattr(predictor, 'device', 'cpu')), seed=options.seed,
                                     argv=options.argv)
            write_provenance(self.folder / 'runs.jsonl', {**run, 'benchmark': benchmark, 'model': predictor.name,
                                                          'dataset': samples.name})


class Evaluator:
    """Evaluation of a predictor on a dataset under conditions.

    run() evaluates what the store does not have yet. Per-image outcomes are appended block by block, for attacks batch
    by batch, so a killed run resumes. Numbers are computed from the outcomes in the order of the dataset, and do not
    depend on the number of ranks, workers or interruptions. Under torch.distributed every rank evaluates its share of
    the blocks.

    Args:
        predictor: A classifier or detector.
        samples: The dataset. `samples.at(condition)` returns the images of a condition.
        metrics: Metrics under every condition. An attacked classifier also has the costs forwards and backwards.
        conditions: Conditions to evaluate.
        store: Records and outcomes.
        benchmark: Text of the benchmark, for runs.jsonl. Records have its name.
    """

    def __init__(self, predictor: Predictor, samples: Samples, metrics: Sequence[Metric],
                 conditions: Iterable[Condition], *, store: Store, options: EvaluationOptions = EvaluationOptions(),
                 benchmark: str = ''):
        self.predictor, self.samples, self.metrics = predictor, samples, tuple(metrics)
        self.conditions = tuple(dict.fromkeys(conditions))
        self.store, self.options, self.benchmark = store, options, benchmark
        self.device = torch.device(getattr(predictor, 'device', 'cpu'))
        self.is_auto = options.batch_size == 'auto'
        self.size = AUTO_BATCH.get(self.device.type, 32) if self.is_auto else int(options.batch_size)
        self.batch_size = self.size  # of the loader; `size` shrinks when memory runs out
        self.sources, self.groups = group_conditions(samples, self.conditions, options.predictors)
        self.identity = Identity(predictor.name, samples.name, options.seed, len(samples))
        self.value_names = tuple(dict.fromkeys(name for metric in self.metrics for name in metric.value_names))
        self.needs_trace = any(metric.needs_trace for metric in self.metrics)
        self._unreadable: dict[int, dict[int, UnreadableImage]] = {}  # by source and index
        self._logged: set[str] = set()
        self.gallery = Gallery(options.save_images, model=predictor.name, dataset=samples.name,
                               seed=options.seed) if options.save_images else None

    def run(self) -> Table:
        """Evaluate the missing conditions and return the records of the model on the dataset.

        Raises:
            InputError: More than `allow_missing` images are unreadable; the message has their names. Or the model
                returns NaN, or the images of a condition are not those that were evaluated before.
        """
        table = self.read_table()
        pending = self.list_pending(table)
        self.outcomes: dict[str, Outcomes] = {}
        if pending or self.gallery:
            known = self.store.outcomes.read(self.identity, self._list_related(self.conditions), items=False
                                             ) if rank() == 0 else None
            self.outcomes = broadcast(known)
        if self.gallery:
            self._check_gallery()
        self._check_images(table)
        if pending:
            if rank() == 0:
                self.store.log_run(self.predictor, self.samples, self.benchmark, self.options)
            self._evaluate(pending)
            self._add_records(pending)
            table = self.read_table()
        if self.gallery and rank() == 0:
            for condition in self.conditions:
                if condition.attack is not None:
                    self.gallery.sheet(condition, cast(LabeledSamples, self.samples).ids)
        return table

    # Plan

    def read_table(self) -> Table:
        """Return the records of the model on the dataset, on every rank."""
        table = self.store.get_table(self.predictor.name, self.samples.name,
                                     seed=self.options.seed) if rank() == 0 else None
        return broadcast(table)

    def list_pending(self, table: Table | None = None) -> list[Condition]:
        """Return the conditions that lack a number in a table, by default that of the store."""
        records = (self.read_table() if table is None else table).records
        recorded = {(record.condition, record.metric) for record in records}
        return [condition for condition in self.conditions if any(
            (str(condition), metric.record_name) not in recorded for metric in self.metrics)]

    def _list_related(self, conditions: Iterable[Condition]) -> list[str] | None:
        """Return the conditions whose outcomes are needed: None (all) for attacks, which reuse smaller epsilons."""
        return None if any(condition.attack for condition in conditions) else list(map(str, conditions))

    def _check_images(self, table: Table) -> None:
        """Raise InputError if a condition with separate images was evaluated on other images."""
        refusal = None
        recorded = {record.condition: record.data_digest for record in table.records}
        for condition in self.conditions:
            source = self.samples.at(condition)[0]
            if source is self.samples:
                continue
            digest = source.files  # type: ignore[attr-defined]
            before = recorded.get(str(condition)) or (
                self.outcomes[str(condition)].data_digest if str(condition) in self.outcomes else '')
            if before and before != digest:
                refusal = refusal or InputError(
                    f'the images of {condition} in {source.root} are not those that were measured: '  # type: ignore
                    f'their content has the digest {digest}, recorded is {before}. Use another --output-dir, or '
                    'another --corrupted-name NAME.')
        raise_on_all_ranks(refusal)

    def _check_gallery(self) -> None:
        """Raise InputError if an image would leave the folder, or one that is not attacked again is not saved."""
        assert self.gallery is not None
        ids = cast(LabeledSamples, self.samples).ids
        attacked = [condition for condition in self.conditions if condition.attack is not None]
        for id in ids if attacked else ():
            self.gallery.path(attacked[0], id)
        related = [other for other in map(Condition.parse, self.outcomes) if other.attack is not None and any(
            is_same_curve(other, condition) for condition in attacked)]
        self.gallery.require({other: [ids[index] for index in np.flatnonzero(
            self.outcomes[str(other)].is_known(VERDICT))] for other in related})

    def _plan_blocks(self, groups: Sequence[ConditionGroup]) -> list[tuple[int, list[int]]]:
        """Return this rank's blocks (source, indices) with an image that some condition lacks."""
        steps = max(1, BLOCK // self.batch_size)
        sizes = sum(-(-len(source) // (steps * self.batch_size)) for source in self.sources)
        while world() > 1 and steps > 1 and sizes < BLOCKS_PER_RANK * world():
            steps, sizes = steps // 2, 2 * sizes
        length = steps * self.batch_size
        while world() > 1 and self.is_auto and length > MIN_UNIT and sizes < BLOCKS_PER_RANK * world():
            length, sizes = length // 2, 2 * sizes
        blocks = []
        for number, source in enumerate(self.sources):
            missing = np.zeros(len(source), bool)
            for condition in (condition for group in groups if group.source == number for condition, _ in group.work):
                missing |= self._get_outcomes(condition).find_missing(self.value_names)
            blocks += [(number, list(range(start, min(start + length, len(source)))))
                       for start in range(0, len(source), length) if missing[start:start + length].any()]
        return [blocks[index] for index in shard_indices(len(blocks))]

    def _get_outcomes(self, condition: Condition) -> Outcomes:
        source, _ = self.samples.at(condition)
        return self.outcomes.setdefault(str(condition), Outcomes(len(source)))

    # Evaluate

    def _evaluate(self, pending: Sequence[Condition]) -> None:
        groups = [ConditionGroup(group.source, work) for group in self.groups
                  if (work := tuple(pair for pair in group.work if pair[0] in pending))]
        plan = self._plan_blocks(groups)
        images: dict[str, int] = {}
        for source, indices in plan:
            for group in groups:
                if group.source == source:
                    images[group.title] = images.get(group.title, 0) + len(indices) * len(group.work)
        progress = Progress(images, show=self.options.progress and rank() == 0)
        failure = FailureFlag()
        refusal: InputError | None = None
        try:
            for block in load_blocks(self.sources, plan, batch_size=self.batch_size, workers=self.options.workers,
                                     pin=self.device.type == 'cuda'):
                if failure.is_set():
                    break
                self._evaluate_block(block, [group for group in groups if group.source == block.source], progress)
        except InputError as error:
            refusal = error
            failure.set()
        progress.close()
        raise_on_all_ranks(refusal)
        self._check_readable()

    def _evaluate_block(self, block: Block, groups: Sequence[ConditionGroup], progress: Progress) -> None:
        """Evaluate a block under the conditions that lack it, and append the outcomes."""
        self._note_unreadable(block)
        batches = [batch.to(self.device) for batch in block.batches]
        for group in groups:
            start = time.monotonic()
            if self._count_unreadable(group) <= self.options.allow_missing:
                if group.is_attack:
                    self._attack_block(block, batches, group)
                else:
                    self._measure_block(block, batches, group)
            progress.update(group.title, (len(block.indices) + len(block.unreadable)) * len(group.work),
                            time.monotonic() - start)

    def _measure_block(self, block: Block, batches: Sequence[RawBatch], group: ConditionGroup) -> None:
        work = [pair for pair in group.work if self._is_missing(pair[0], block.indices, block.unreadable)]
        if not work:
            return
        values: dict[Condition, list[tuple[tuple[int, ...], Mapping[str, Any]]]] = {pair[0]: [] for pair in work}
        for part in self._split(batches):
            for measured_part, condition, measured in self._measure_batch(part, work, self.sources[group.source]):
                values[condition].append((measured_part.indices, measured))
        self._append([self._make_entry(condition, parts, block) for condition, parts in values.items()])

    def _measure_batch(self, batch: RawBatch, work: Sequence[tuple[Condition, Condition]], source: Samples
                       ) -> list[tuple[RawBatch, Condition, Mapping[str, Any]]]:
        """Return the values of a batch under each condition, in halves if memory runs out."""
        try:
            return [(batch, condition, values) for condition, values in self._predict_conditions(batch, work, source)]
        except torch.OutOfMemoryError:
            if not self.is_auto or len(batch) == 1:
                raise
        self._reduce_batch(len(batch))
        return [result for part in self._split([batch]) for result in self._measure_batch(part, work, source)]

    def _predict_conditions(self, batch: RawBatch, work: Sequence[tuple[Condition, Condition]], source: Samples
                            ) -> Iterator[tuple[Condition, Mapping[str, Any]]]:
        variants = apply_corruption(batch, [rest for _, rest in work], self.options.seed)
        for (condition, _), images in zip(work, variants, strict=True):
            prepared = self.predictor.collate(batch.samples(images), images)
            with name_condition(condition):
                if hasattr(source, 'measure_batch'):  # a dataset with another test, such as many backgrounds
                    values: dict[str, Any] = source.measure_batch(self.predictor, prepared, batch.indices)
                else:
                    outputs = self.predictor.predict(prepared.images, prepared, trace=self.needs_trace)
                    values = self._measure(outputs, prepared)
            yield condition, values

    def measure(self, batch: RawBatch, group: ConditionGroup) -> Mapping[str, Any]:
        """Return the per-image values of a batch under the last condition of a group, without its attack."""
        work = [(condition, Condition(rest.corruption)) for condition, rest in group.work]
        return list(self._predict_conditions(batch, work, self.sources[group.source]))[-1][1]

    def _measure(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """Return the values of all metrics by name. Of a classifier, '' is whether its logits are finite."""
        values: dict[str, Any] = {}
        for metric in self.metrics:
            values |= metric.measure(outputs, batch)
        if isinstance(outputs.predictions, Tensor):
            values[''] = outputs.predictions.isfinite().all(1)
        return values

    def _attack_block(self, block: Block, batches: Sequence[RawBatch], group: ConditionGroup) -> None:
        """Attack the batches of a block, and append the outcomes of each batch and condition."""
        for batch in self._split(batches):
            self._attack_batch(batch, group)
        self._append([Entry(str(condition), np.zeros(0, int), {}, tuple(block.unreadable))
                      for condition, _ in group.work if self._is_missing(condition, (), block.unreadable)])

    def _attack_batch(self, batch: RawBatch, group: ConditionGroup) -> None:
        work = [pair for pair in group.work if self._is_missing(pair[0], batch.indices)]
        if not work:
            return
        try:
            self._attack_conditions(batch, work)
            return
        except torch.OutOfMemoryError:
            if not self.is_auto or len(batch) == 1:
                raise
        self._reduce_batch(len(batch))
        for part in self._split([batch]):
            self._attack_batch(part, group)

    def _attack_conditions(self, batch: RawBatch, work: Sequence[tuple[Condition, Condition]]) -> None:
        options = self.options
        images = next(apply_corruption(batch, [work[0][1]], options.seed))
        prepared = self.predictor.collate(batch.samples(images), images)
        is_verdict = hasattr(self.predictor, 'logits') and self.value_names == (VERDICT,)
        known = [self._find_known(condition, batch.indices) for condition, _ in work] if is_verdict else None
        curve = attack_curve(self.predictor, prepared, [get_attack(rest) for _, rest in work], options.seed,
                             known=known, predictors=options.predictors)
        if self.gallery:
            self.gallery.keep(Condition(work[0][0].corruption), prepared.images, batch.ids)
        for position, (condition, _) in enumerate(work):
            with name_condition(Condition(condition.corruption)):
                result = next(curve)
            if self.gallery:
                self._save_images(condition, result, batch, known[position] if known else None)
            self._append([self._make_attack_entry(condition, result, prepared, batch,
                                                  known[position] if known else None)])

    def _make_attack_entry(self, condition: Condition, result: AttackResult, batch: Batch, raw: RawBatch,
                           known: KnownOutcomes | None) -> Entry:
        """Return the outcomes of an attack for the images without a known one."""
        costs = dict(zip(COSTS, (result.forwards, result.backwards), strict=True))
        if known is not None and result.wrong is not None:
            fresh = (~known.is_known).cpu().numpy()
            values: dict[str, Any] = {VERDICT: result.wrong.cpu().numpy()[fresh]}
            return Entry(str(condition), np.array(raw.indices)[fresh], values, costs=costs)
        outputs = result.outputs
        if self.needs_trace:
            outputs = self.predictor.predict(result.images, batch, trace=True)
        values = self._measure(outputs, batch)
        entry = self._make_entry(condition, [(raw.indices, values)], None)
        return Entry(entry.condition, entry.indices, entry.values, costs=costs if result.wrong is not None else {})

    def _find_known(self, condition: Condition, indices: Sequence[int]) -> KnownOutcomes:
        """Return which images have an outcome at this epsilon, and which are known to be fooled."""
        chosen = np.array(indices)
        is_known = self._get_outcomes(condition).is_known(VERDICT)[chosen]
        fooled = self._find_fooled(condition, chosen)
        return KnownOutcomes(*(torch.from_numpy(values).to(self.device) for values in (
            is_known, np.array([other is not None for other in fooled], bool))))

    def _find_fooled(self, condition: Condition, indices: np.ndarray) -> list[Condition | None]:
        """Return for each image the condition, of this or a smaller epsilon, under which it was fooled."""
        fooled: list[Condition | None] = [None] * len(indices)
        family = sorted((other for other in map(Condition.parse, self.outcomes) if other.attack is not None
                         and is_same_curve(other, condition)), key=lambda other: get_radius(get_attack(other)))
        for other in family:
            if implies_success(get_attack(other), get_attack(condition)):
                errors = self.outcomes[str(other)].get_dense(VERDICT)
                for row, index in enumerate(indices.tolist() if errors is not None else ()):
                    if errors[index] == 1 and fooled[row] is None:  # type: ignore[index]
                        fooled[row] = other
        return fooled

    def _save_images(self, condition: Condition, result: AttackResult, batch: RawBatch, known: KnownOutcomes | None
                     ) -> None:
        """Save the images of this run, and copies of those that were fooled at a smaller epsilon before."""
        assert self.gallery is not None
        if known is None:
            self.gallery.keep(condition, result.images, batch.ids)
            return
        is_known, was_fooled = known.is_known.tolist(), known.wrong.tolist()
        self.gallery.keep(condition, result.images, batch.ids, only=[
            not before and not fooled for before, fooled in zip(is_known, was_fooled, strict=True)])
        for id, other, before in zip(batch.ids, self._find_fooled(condition, np.array(batch.indices)), was_fooled,
                                     strict=True):
            if before and other is not None:
                self.gallery.copy(other, condition, id)

    def _split(self, batches: Iterable[RawBatch]) -> Iterator[RawBatch]:
        """Yield parts of at most `size` images, which may shrink between two of them."""
        for batch in batches:
            start = 0
            while start < len(batch):
                stop = min(start + self.size, len(batch))
                yield batch if stop - start == len(batch) else batch.select(range(start, stop))
                start = stop

    def _reduce_batch(self, tried: int) -> None:
        self.size = max(1, tried // 2)
        torch.cuda.empty_cache()
        _log.warning('memory ran out at batch size %d; continuing with %d', tried, self.size)

    # Store

    def _is_missing(self, condition: Condition, indices: Sequence[int], unreadable: Collection[int] = ()) -> bool:
        """Return whether an image lacks a value, or an unreadable one is not recorded as such."""
        outcomes = self._get_outcomes(condition)
        return bool(outcomes.find_missing(self.value_names)[list(indices)].any()
                    or not outcomes.is_recorded[list(unreadable)].all())

    def _make_entry(self, condition: Condition, parts: Sequence[tuple[Sequence[int], Mapping[str, Any]]],
                    block: Block | None) -> Entry:
        """Return the values of several batches in the order of the dataset. Raises NonFiniteOutputs for NaN."""
        indices = np.array([index for part, _ in parts for index in part], dtype=int)
        order = np.argsort(indices, kind='stable')
        values: dict[str, Any] = {}
        for name in parts[0][1] if parts else ():
            pieces = [measured[name] for _, measured in parts]
            if isinstance(pieces[0], Tensor):
                values[name] = torch.cat(pieces).cpu().numpy()[order]
            else:
                items = [item for piece in pieces for item in piece]
                values[name] = [items[row] for row in order]
        finite = values.pop('', None)
        if finite is not None and not finite.all():
            source, _ = self.samples.at(condition)
            index = int(indices[order][int(np.argmin(finite))])
            raise NonFiniteOutputs(cast(LabeledSamples, source).ids[index], str(condition))
        return Entry(str(condition), indices[order], values, tuple(block.unreadable) if block else ())

    def _append(self, entries: Sequence[Entry]) -> None:
        """Append entries to the store and to the known outcomes."""
        complete = []
        for entry in entries:
            source, _ = self.samples.at(Condition.parse(entry.condition))
            digest = source.files if source is not self.samples else ''  # type: ignore[attr-defined]
            complete.append(Entry(entry.condition, entry.indices, entry.values, entry.unreadable, entry.costs, digest))
        fresh = [entry for entry in complete if len(entry.indices) or entry.unreadable]
        self.store.outcomes.append(self.identity, fresh)
        for entry in fresh:
            self._get_outcomes(Condition.parse(entry.condition)).add(drop_items(entry))

    def _note_unreadable(self, block: Block) -> None:
        """Log each unreadable image once, even if several conditions skip it."""
        for error in block.unreadable.values():
            if self.options.allow_missing and error.id not in self._logged:
                self._logged.add(error.id)
                _log.warning('left out: %s', error)
        for index, error in block.unreadable.items():
            self._unreadable.setdefault(block.source, {})[index] = error

    def _count_unreadable(self, group: ConditionGroup) -> int:
        return len(self._unreadable.get(group.source, ()))

    # Compute

    def _check_readable(self) -> None:
        """Raise InputError on all ranks if a source has more unreadable images than allowed."""
        errors = all_gather([(source, error) for source, found in self._unreadable.items()
                             for error in found.values()])
        for number in range(len(self.sources)):
            unreadable = [error for source, error in errors if source == number]
            if len(unreadable) > self.options.allow_missing:
                shown = ', '.join(f'{error.id} ({error.reason})' for error in unreadable[:8])
                more = f' and {len(unreadable) - 8} more' if len(unreadable) > 8 else ''
                raise InputError(f'{len(unreadable)} images are unreadable: {shown}{more}. Fix them, or leave them out '
                                 f'with --allow-missing {len(unreadable)}.')

    def _add_records(self, pending: Sequence[Condition]) -> None:
        """Compute the numbers of every condition, each on one rank, and add them to the store on rank 0."""
        self.store.outcomes.gather(all_gather)
        mine = [pending[position] for position in shard_indices(len(pending))]
        at_once = 1 if 'detections' in self.value_names else max(1, len(mine))  # detections need gigabytes
        records: list[Record] = []
        refusal = None
        try:
            for start in range(0, len(mine), at_once):
                some = mine[start:start + at_once]
                outcomes = self.store.outcomes.read(self.identity, list(map(str, some)))
                for condition in some:
                    records += self._compute_records(condition, outcomes)
        except InputError as error:
            refusal = error
        raise_on_all_ranks(refusal)
        every = all_gather(records)
        if rank() == 0:
            order = {str(condition): position for position, condition in enumerate(pending)}
            self.store.add(sorted(every, key=lambda record: order[record.condition]))

    def _compute_records(self, condition: Condition, every: Mapping[str, Outcomes]) -> list[Record]:
        source, _ = self.samples.at(condition)
        outcomes = every.get(str(condition), Outcomes(len(source)))
        if missing := int((outcomes.find_missing(self.value_names) & ~outcomes.unreadable).sum()):
            raise InputError(f'{missing} of {len(source)} images were not evaluated under {condition}. Run the same '
                             'command again.')
        unreadable = int(outcomes.unreadable.sum())
        if unreadable > self.options.allow_missing:
            ids = [cast(LabeledSamples, source).ids[index] for index in np.flatnonzero(outcomes.unreadable)[:8]]
            raise InputError(f'{unreadable} images are unreadable: {", ".join(ids)}. Fix them, or leave them out with '
                             f'--allow-missing {unreadable}.')
        values = [value for metric in self.metrics for value in metric.compute(outcomes, source)]
        costs = [MetricValue(name, cost / values[0].count, values[0].count) for name, cost in outcomes.costs.items()]
        return [Record(self.predictor.name, self.samples.name, str(condition), value.metric, float(value.value),
                       value.count, self.options.seed, value.layer, value.class_name, self.benchmark.partition('(')[0],
                       outcomes.data_digest, unreadable) for value in (*costs, *values)]


def group_conditions(samples: Samples, conditions: Iterable[Condition], predictors: Predictors | None = None
                     ) -> tuple[list[Samples], list[ConditionGroup]]:
    """Return the sources of the images, and the conditions in groups.

    Conditions that differ only in severity share a group, and so do those that differ only in the attack's epsilon, in
    rising order. Corrupted images stored on disk have a source each. Raises InputError for a corruption, severity or
    attack that does not exist.
    """
    sources: list[Samples] = []
    groups: dict[tuple, ConditionGroup] = {}
    for condition in dict.fromkeys(conditions):
        source, rest = samples.at(condition)
        check_corruption(rest.corruption)
        check_attack(rest.attack, predictors)
        number = next((number for number, other in enumerate(sources) if other is source), len(sources))
        sources += [source] if number == len(sources) else []
        key = number, *_get_shared_part(rest)
        before = groups[key].work if key in groups else ()
        groups[key] = ConditionGroup(number, tuple(sorted((*before, (condition, rest)), key=_get_epsilon)))
    return sources, list(groups.values())


def _get_shared_part(condition: Condition) -> tuple[Spec | None, Spec | None]:
    """Return the part of a condition that is equal for all conditions of one group."""
    corruption, attack = condition.corruption, condition.attack
    if attack is not None:
        return corruption, attack.without('epsilon')
    return corruption and corruption.without('severity', *arguments(corruption)), None


def _get_epsilon(work: tuple[Condition, Condition]) -> float:
    return get_radius(work[1].attack) if work[1].attack else 0.
