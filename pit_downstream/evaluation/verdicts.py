"""Per-image attack verdicts on disk, so that an interrupted run does not search again."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from pit_downstream.attacks.base import Predictors
from pit_downstream.results.condition import Condition
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Batch, Classifier, Metric
from pit_downstream.utils.jsonl import JsonLines
from pit_downstream.results.records import ResultStore, Table, get_model_key
from pit_downstream.utils.spec import quote
from pit_downstream.datasets.base import LabeledSamples, Samples
from pit_downstream.evaluation.attacking import (
    AttackResult,
    KnownOutcomes,
    attack_curve,
    fools_further,
    get_attack,
    radius,
    same_curve,
)
from pit_downstream.evaluation.corrupting import apply_corruption
from pit_downstream.evaluation.image_export import Gallery
from pit_downstream.evaluation.keep import keep_measuring
from pit_downstream.evaluation.data_loading import RawBatch
from pit_downstream.evaluation.evaluator import Pass
from pit_downstream.evaluation.distributed import broadcast, all_gather, rank


@dataclass(frozen=True)
class Chunk:
    """Verdicts for some images of `dataset` under one condition.

    `right` has '1' for each of `ids` that the model still classifies correctly, else '0'. `forwards` and `backwards`
    count the images in model passes for these verdicts, in total.
    """

    model: str
    dataset: str
    condition: str
    seed: int
    ids: tuple[str, ...]
    right: str
    forwards: int
    backwards: int


@dataclass
class Verdicts:
    """Verdicts for one condition. `right` is by image id. `forwards` and `backwards` are totals as in Chunk."""

    right: dict[str, bool] = field(default_factory=dict)
    forwards: int = 0
    backwards: int = 0

    def add(self, chunk: Chunk) -> None:
        """Add a chunk. For images already present, e.g. searched by two runs at once, the first verdict is kept."""
        fresh = {id: letter == '1' for id, letter in zip(chunk.ids, chunk.right, strict=True) if id not in self.right}
        if fresh:
            self.right |= fresh
            self.forwards += chunk.forwards
            self.backwards += chunk.backwards

    def values(self) -> dict[str, float]:
        count = len(self.right)
        if not count:
            raise InputError('expected at least one image, got none; check the data and --limit')
        return {'top1_error': (count - sum(self.right.values())) / count, 'forwards': self.forwards / count,
                'backwards': self.backwards / count}


class VerdictStore:
    """The files verdicts*.jsonl in a folder, one per rank, append-only (core.jsonl)."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def add(self, *chunks: Chunk) -> None:
        name = f'verdicts.{rank()}.jsonl' if rank() else 'verdicts.jsonl'
        JsonLines(self.folder / name).append(map(asdict, chunks))

    def read(self, model: str, dataset: str, seed: int) -> dict[str, Verdicts]:
        """Return the verdicts by condition."""
        found: dict[str, Verdicts] = {}
        for path in sorted(self.folder.glob('verdicts*.jsonl')):
            for number, line in enumerate(JsonLines(path).read(), 1):
                chunk = _parsed(path, number, line)
                if (get_model_key(chunk.model), chunk.dataset, chunk.seed) == (get_model_key(model), dataset, seed):
                    found.setdefault(chunk.condition, Verdicts()).add(chunk)
        return found


def _parsed(path: Path, number: int, line: bytes) -> Chunk:
    try:
        return Chunk(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise InputError(f'expected the verdicts of some images in line {number} of {path}, got '
                         f'{quote(line)}; remove or fix that line') from error


def keep_attacking(store: ResultStore, predictor: Classifier, samples: Samples, conditions: Sequence[Condition], *,
                   seed: int = 0, gallery: Gallery | None = None, predictors: Predictors | None = None,
                   **options: Any) -> Table:
    """Measure a classifier under conditions with an attack, as keep_measuring does for other conditions.

    Each condition has the records top1_error (1 - robust accuracy, on all images), and forwards and backwards, the
    passes per image. Verdicts are stored batch by batch, so an interrupted run resumes. An epsilon added to a curve
    later starts from the images fooled at smaller ones. Records are never rewritten: a smaller epsilon added later may
    fool an image that counts as right under a larger one measured before. `gallery` saves the images. `predictors` and
    `options` are those of `measure_passes`.
    """
    verdicts = VerdictStore(store.path.parent)
    known = broadcast(verdicts.read(predictor.name, samples.name, seed) if rank() == 0 else None)
    if gallery:
        related = [other for other in map(Condition.parse, known) if any(same_curve(other, one) for one in conditions)]
        gallery.require({other: list(known[str(other)].right) for other in related})

    def judged(predictor: Classifier, one: Pass, metrics: Sequence[Metric], seed: int) -> RobustAccuracy:
        return RobustAccuracy(predictor, one, seed, verdicts=verdicts, known=known, dataset=samples.name,
                              gallery=gallery, predictors=predictors)
    names = [MetricName('top1_error'), MetricName('backwards')]
    metrics = cast(list[Metric], names)  # only the counter uses more of a metric than its name
    return keep_measuring(store, predictor, samples, metrics, conditions, seed=seed, counter=judged,
                          predictors=predictors, **options)


@dataclass(frozen=True)
class MetricName:
    """Name of a value computed from verdicts, in place of a metric."""

    name: str


class RobustAccuracy:
    """Counter of a pass (evaluation.evaluator.Counter) that computes its values from verdicts."""

    def __init__(self, predictor: Classifier, one: Pass, seed: int, *, verdicts: VerdictStore,
                 known: Mapping[str, Verdicts], dataset: str, gallery: Gallery | None = None,
                 predictors: Predictors | None = None):
        self.predictor, self.work, self.seed, self.dataset = predictor, one.work, seed, dataset
        self.predictors = predictors
        self.verdicts, self.known, self.gallery = verdicts, known, gallery
        self.fresh: list[Chunk] = []
        self.family = sorted((other for other in map(Condition.parse, known) if other.attack is not None
                              and same_curve(other, one.work[0][0])), key=lambda one: radius(get_attack(one)))
        finished = set.intersection(*({*self._right(condition)} for condition, _ in one.work))
        self.wanted = [index for index, id in enumerate(cast(LabeledSamples, one.samples).ids)
                       if id not in finished]

    def take(self, batch: RawBatch, work: Sequence[tuple[Condition, Condition]]) -> Iterator[Condition]:
        taken = self.predictor.collate(batch.samples(next(apply_corruption(batch, [work[0][1]], self.seed))))
        settled = [self._settled(condition, batch.ids) for condition, _ in work]
        curve = attack_curve(self.predictor, taken, [get_attack(rest) for _, rest in work], self.seed, settled=settled,
                             predictors=self.predictors)
        if self.gallery:
            self.gallery.keep(Condition(work[0][0].corruption), taken.images, batch.ids)
            for (condition, _), found, before in zip(work, curve, settled, strict=True):
                self._save(self.gallery, condition, found, before, batch.ids)
        chunks = [self._chunk(condition, found, ~before.here, taken)
                  for (condition, _), found, before in zip(work, curve, settled, strict=True)]
        self.verdicts.add(*(chunk for chunk in chunks if chunk.ids))
        self.fresh += chunks
        yield from (condition for condition, _ in work)

    def values(self) -> Iterator[tuple[Condition, Mapping[str, float], int]]:
        every: dict[str, Verdicts] = {}
        for chunk in all_gather(self.fresh):
            every.setdefault(chunk.condition, Verdicts()).add(chunk)
        for condition, _ in self.work:
            before = self.known.get(str(condition), Verdicts())
            new = every.get(str(condition), Verdicts())
            both = Verdicts(before.right | new.right, before.forwards + new.forwards, before.backwards + new.backwards)
            yield condition, both.values(), len(both.right)

    def _right(self, condition: Condition) -> Mapping[str, bool]:
        return self.known[str(condition)].right if str(condition) in self.known else {}

    def _settled(self, condition: Condition, ids: Sequence[str]) -> KnownOutcomes:
        here, lost = self._right(condition), self._lost(condition, ids)
        return KnownOutcomes(torch.tensor([id in here for id in ids], device=self.predictor.device),
                       torch.tensor([id in lost for id in ids], device=self.predictor.device))

    def _lost(self, condition: Condition, ids: Sequence[str]) -> dict[str, Condition]:
        """Return the images known to be fooled, with the condition under which they were."""
        found: dict[str, Condition] = {}
        for other in self.family:
            if fools_further(get_attack(other), get_attack(condition)):
                right = self._right(other)
                found |= {id: other for id in ids if right.get(id) is False and id not in found}
        return found

    def _chunk(self, condition: Condition, found: AttackResult, fresh: torch.Tensor, batch: Batch) -> Chunk:
        which = fresh.nonzero().flatten().tolist()
        assert found.wrong is not None  # known for classifiers
        wrong = found.wrong.tolist()
        return Chunk(self.predictor.name, self.dataset, str(condition), self.seed,
                     tuple(batch.samples[row].id for row in which), ''.join('01'[not wrong[row]] for row in which),
                     found.forwards, found.backwards)

    def _save(self, gallery: Gallery, condition: Condition, found: AttackResult, before: KnownOutcomes,
              ids: Sequence[str]) -> None:
        """Save this run's images, and copies of those that an earlier run fooled at a smaller epsilon."""
        lost, here = self._lost(condition, ids), before.here.tolist()
        gallery.keep(condition, found.images, ids, only=[id not in lost and not here[row]
                                                         for row, id in enumerate(ids)])
        for id, other in lost.items():
            gallery.copy(other, condition, id)
