"""Checks around an evaluation under attacks: can the model be attacked, and are the numbers plausible?"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pit_downstream.attacks.base import build_attack
from pit_downstream.attacks.sanity_checks import check_after, check_before
from pit_downstream.datasets.base import Samples, UnreadableImage
from pit_downstream.evaluation.attacking import get_attack
from pit_downstream.results.condition import Condition
from pit_downstream.results.records import Table
from pit_downstream.utils.protocols import Classifier, Predictor, Sample
from pit_downstream.utils.rng import BatchRng

NUM_IMAGES = 16  # for the checks of a classifier


def check_classifier(predictor: Classifier, samples: Samples) -> tuple[str, ...]:
    """Return warnings from a quick check of the model on a few images."""
    return check_before(predictor, predictor.collate(sample_images(samples)))


def check_accuracies(table: Table, conditions: Sequence[Condition]) -> tuple[str, ...]:
    """Return warnings about the accuracies of attacks under each corruption."""
    warnings: list[str] = []
    attacked = [condition for condition in conditions if condition.attack and (condition, 'top1_error') in table]
    for corruption in dict.fromkeys(condition.corruption for condition in attacked):
        records = {get_attack(condition): table.record((condition, 'top1_error')) for condition in attacked
                   if condition.corruption == corruption}
        found = check_after({spec: 1 - record.value for spec, record in records.items()},
                            min(record.count for record in records.values()))
        warnings += found if corruption is None else [f'under {corruption}: {text}' for text in found]
    return tuple(warnings)


def try_attacks(predictor: Predictor, samples: Samples, conditions: Sequence[Condition], seed: int) -> None:
    """Run each attack for one step on one image, so that one without support for this detector fails early."""
    attacks = {condition.attack.without('epsilon'): build_attack(condition.attack) for condition in conditions
               if condition.attack}
    for sample in sample_images(samples)[:1] if attacks else []:
        batch = predictor.collate([sample])
        for attack in attacks.values():
            changes: dict[str, Any] = {'steps': 1} if getattr(attack, 'steps', 1) > 1 else {}
            replace(attack, **changes)(predictor, batch, BatchRng(seed, [sample.id], device=batch.images.device))


def sample_images(samples: Samples) -> list[Sample]:
    """Return a few readable samples, evenly spread."""
    chosen = []
    for index in sorted({number * len(samples) // NUM_IMAGES for number in range(NUM_IMAGES)}):
        with suppress(UnreadableImage):
            chosen.append(samples[index])
    return chosen
