"""Robustness of a detector to attacks, with clean AP and AP under noise on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pit_downstream.attacks.base import build_attack
from pit_downstream.benchmarks import adversarial, detection_attacks
from pit_downstream.results.condition import Condition
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Metric
from pit_downstream.results.records import ResultStore, Table
from pit_downstream.datasets.base import Samples
from pit_downstream.evaluation.keep import keep_measuring
from pit_downstream.evaluation.distributed import broadcast, rank
from pit_downstream.evaluation.robustness import sample_images
from pit_downstream.utils.rng import BatchRng
from pit_downstream.det.predictor import DetectorPredictor


@dataclass(frozen=True)
class DetectorRobustness:
    """Results of a robustness evaluation. table: all requested conditions, including those already in the store."""

    table: Table
    warnings: tuple[str, ...] = ()

    def text(self, conditions: Sequence[Condition]) -> str:
        return detection_attacks.format_table(self.table, conditions)

    def csv(self) -> str:
        return adversarial.format_csv(self.table)

    def json(self) -> str:
        return detection_attacks.format_json(self.table)


def keep_robustness(store: ResultStore, predictor: DetectorPredictor, samples: Samples, conditions: Sequence[Condition],
                    *, metrics: Sequence[Metric], seed: int = 0, save: str | Path | None = None, **options: Any
                    ) -> DetectorRobustness:
    """Measure the conditions that are not in `store` yet. options: of measure_passes.

    The attacked image of one epsilon is not reused for larger ones, because AP is not defined per image.
    """
    if save:
        raise InputError('--save-images applies to a classifier, got a detector. pit-downstream show-detections draws '
                         'attacked images.')
    done = broadcast(store.list_measured(predictor.name, samples.name, seed) if rank() == 0 else frozenset())
    _try(predictor, samples, [one for one in conditions if any(
        (str(one), metric.name) not in done for metric in metrics)], seed)
    return DetectorRobustness(keep_measuring(store, predictor, samples, metrics, conditions, seed=seed, **options))


def _try(predictor: DetectorPredictor, samples: Samples, conditions: Sequence[Condition], seed: int) -> None:
    """Run each attack for one step on one image, so that one without support for this detector fails early."""
    attacks = {one.attack.without('epsilon'): build_attack(one.attack) for one in conditions if one.attack}
    for sample in sample_images(samples)[:1] if attacks else []:
        batch = predictor.collate([sample])
        for attack in attacks.values():
            changes: dict[str, Any] = {'steps': 1} if getattr(attack, 'steps', 1) > 1 else {}
            short = replace(attack, **changes)
            short(predictor, batch, BatchRng(seed, [sample.id], device=batch.images.device))
