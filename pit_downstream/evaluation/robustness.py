"""Robustness of a classifier: results under attacks, worst cases over attacks, and warnings."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pit_downstream.attacks.base import Predictors
from pit_downstream.attacks.sanity_checks import check_after, check_before
from pit_downstream.benchmarks import adversarial
from pit_downstream.benchmarks.adversarial import Rate, compute_worst_cases, get_accuracy
from pit_downstream.results.condition import Condition
from pit_downstream.utils.protocols import Classifier, Sample
from pit_downstream.results.records import ResultStore, Table
from pit_downstream.datasets.base import LabeledSamples, Samples, UnreadableImage
from pit_downstream.metrics.classification import make_top1_error
from pit_downstream.evaluation.attacking import get_attack
from pit_downstream.evaluation.image_export import Gallery
from pit_downstream.evaluation.keep import keep_measuring
from pit_downstream.evaluation.distributed import broadcast, rank
from pit_downstream.evaluation.verdicts import VerdictStore, keep_attacking


FEW = 16  # images for the sanity checks


@dataclass(frozen=True)
class Robustness:
    """Results under attacks.

    Attributes:
        table: Records of all requested conditions and of those already in the store.
        worst: Accuracy by norm and epsilon over all requested attacks.
        warnings: Reasons to doubt the results (attacks.sanity_checks).
    """

    table: Table
    worst: dict[Condition, Rate]
    warnings: tuple[str, ...] = ()

    def text(self, conditions: Sequence[Condition]) -> str:
        return adversarial.format_table(self.table, conditions, self.worst)

    def csv(self) -> str:
        return adversarial.format_csv(self.table)

    def json(self) -> str:
        return adversarial.format_json(self.table, self.worst, self.warnings)


def keep_robustness(store: ResultStore, predictor: Classifier, samples: LabeledSamples,
                    conditions: Sequence[Condition], *, seed: int = 0, save: str | Path | None = None,
                    predictors: Predictors | None = None, **options: Any) -> Robustness:
    """Measure the conditions missing from `store`, those without an attack first.

    `save` is a folder for the attacked images (evaluation.image_export). `predictors` and `options` are those of
    measure_passes.
    """
    attacked = [condition for condition in conditions if condition.attack is not None]
    gallery = Gallery(save, model=predictor.name, dataset=samples.name, seed=seed) if save else None
    if gallery and attacked:
        for id in samples.ids:
            gallery.path(attacked[0], id)  # reject an id outside the folder before any work
    still = [condition for condition in conditions if condition.attack is None]
    table = keep_measuring(store, predictor, samples, [make_top1_error()], still, seed=seed, **options)
    before = _before(predictor, samples) if attacked else ()
    if attacked:
        table = keep_attacking(store, predictor, samples, attacked, seed=seed, gallery=gallery, predictors=predictors,
                               **options)
    if gallery and rank() == 0:
        for condition in attacked:
            gallery.sheet(condition, samples.ids)
    worst, after = broadcast((_worst(store, table, attacked, seed), _after(table, attacked)) if rank() == 0 else None)
    return Robustness(table, worst, (*before, *after))


def _worst(store: ResultStore, table: Table, attacked: Sequence[Condition], seed: int) -> dict[Condition, Rate]:
    kept = VerdictStore(store.path.parent).read(table.model, table.dataset, seed)
    return compute_worst_cases({condition: kept[str(condition)].right for condition in attacked})


def _before(predictor: Classifier, samples: Samples) -> tuple[str, ...]:
    """Return warnings from a quick check of the model on a few images. Every rank runs its own check."""
    return check_before(predictor, predictor.collate(sample_images(samples)))


def _after(table: Table, attacked: Sequence[Condition]) -> tuple[str, ...]:
    """Return warnings about the accuracies under each corruption."""
    found: list[str] = []
    for corruption in dict.fromkeys(condition.corruption for condition in attacked):
        here = {get_attack(condition): get_accuracy(table, condition) for condition in attacked
                if condition.corruption == corruption}
        said = check_after({spec: rate.value for spec, rate in here.items()}, min(rate.count for rate in here.values()))
        found += said if corruption is None else [f'under {corruption}: {sentence}' for sentence in said]
    return tuple(found)


def sample_images(samples: Samples) -> list[Sample]:
    """Return a few readable samples, evenly spread."""
    found = []
    for index in sorted({number * len(samples) // FEW for number in range(FEW)}):
        with suppress(UnreadableImage):
            found.append(samples[index])
    return found
