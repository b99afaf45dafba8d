"""A classifier under attacks: its table, the worst cases over them, and what speaks against the numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..benchmarks.adversarial import Rate, worst_cases
from ..core.condition import Condition
from ..core.contracts import Classifier
from ..core.records import ResultStore, Table
from ..datasets.base import Samples
from ..metrics.classification import top1_error
from .gallery import Gallery
from .keep import keep_measuring
from .ranks import from_first, rank
from .verdicts import VerdictStore, keep_attacking


@dataclass(frozen=True)
class Robustness:
    """table: every condition that was wanted, and what the store held before. worst: accuracy by norm and epsilon over
    all attacks that were wanted."""

    table: Table
    worst: dict[Condition, Rate]
    warnings: tuple[str, ...] = ()


def keep_robustness(store: ResultStore, predictor: Classifier, samples: Samples, conditions: Sequence[Condition], *,
                    seed: int = 0, save: str | Path | None = None, **options: Any) -> Robustness:
    """Measure what `store` does not hold yet of the conditions, those without an attack first.

    save: a folder for the attacked images (evaluation.gallery). options: of measure_passes.
    """
    attacked = [condition for condition in conditions if condition.attack is not None]
    gallery = Gallery(save, model=predictor.name, dataset=samples.name, seed=seed) if save else None
    still = [condition for condition in conditions if condition.attack is None]
    table = keep_measuring(store, predictor, samples, [top1_error()], still, seed=seed, **options)
    if attacked:
        table = keep_attacking(store, predictor, samples, attacked, seed=seed, gallery=gallery, **options)
    if gallery and rank() == 0:
        for condition in attacked:
            gallery.sheet(condition, samples.ids)
    return Robustness(table, from_first(_worst(store, table, attacked, seed) if rank() == 0 else None))


def _worst(store: ResultStore, table: Table, attacked: Sequence[Condition], seed: int) -> dict[Condition, Rate]:
    kept = VerdictStore(store.path.parent).read(table.model, table.dataset, seed)
    return worst_cases({condition: kept[str(condition)].right for condition in attacked})
