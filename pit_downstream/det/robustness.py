"""A detector under attacks: its table, beside the clean AP and that under noise, on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..benchmarks import adversarial_tables, detection_attacks
from ..core.condition import Condition
from ..core.contracts import Metric
from ..core.records import ResultStore, Table
from ..datasets.base import Samples
from ..evaluation.keep import keep_measuring
from .predictor import DetectorPredictor


@dataclass(frozen=True)
class DetectorRobustness:
    """table: every condition that was wanted, and what the store held before."""

    table: Table
    warnings: tuple[str, ...] = ()

    def text(self, conditions: Sequence[Condition]) -> str:
        return detection_attacks.as_text(self.table, conditions)

    def csv(self) -> str:
        return adversarial_tables.as_csv(self.table)

    def json(self) -> str:
        return detection_attacks.as_json(self.table)


def keep_robustness(store: ResultStore, predictor: DetectorPredictor, samples: Samples, conditions: Sequence[Condition],
                    *, metrics: Sequence[Metric], seed: int = 0, save: str | Path | None = None, **options: Any
                    ) -> DetectorRobustness:
    """Measure what `store` does not hold yet of the conditions. options: of measure_passes.

    What an image becomes at one epsilon is not carried over to larger ones: an AP knows no verdict on an image.
    """
    if save:
        raise ValueError('expected --save with a classifier, got it with a detector; tools/show_detections.py makes '
                         'pictures of attacked images')
    return DetectorRobustness(keep_measuring(store, predictor, samples, metrics, conditions, seed=seed, **options))
