"""A batch under an attack: every epsilon of a curve, each with its verdicts and what they cost."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pit_downstream import attacks  # noqa: F401  registers them
from pit_downstream.attacks.base import Attack, Predictors, build_attack
from pit_downstream.core.condition import Condition
from pit_downstream.core.contracts import Batch, Classifier, NonFiniteOutputs, Outputs, Predictor
from pit_downstream.core.registry import ATTACKS
from pit_downstream.core.spec import Spec
from pit_downstream.streams.rng import BatchRng


@dataclass(frozen=True)
class AttackResult:
    """A batch at one epsilon.

    images: (B, 3, H, W) in [0, 1]. outputs: what the predictor says of them. wrong: bool (B,), of a classifier.
    forwards, backwards: images that went through the model there and back, in the search and for the verdict.
    """

    images: Tensor
    outputs: Outputs
    wrong: Tensor | None = None
    forwards: int = 0
    backwards: int = 0


@dataclass(frozen=True)
class KnownOutcomes:
    """What is known before an attack. here: bool (B,), the verdict at this epsilon is; wrong: bool (B,), the image is
    fooled at this epsilon or, unless the attack runs to its end, at a smaller one."""

    here: Tensor
    wrong: Tensor


def check_attack(spec: Spec | None, predictors: Predictors | None = None) -> None:
    """Raise LookupError or ValueError unless `spec` names an attack, its size, and nothing unknown."""
    if spec is not None:
        build_attack(spec, predictors=predictors)


def attack_curve(predictor: Predictor, batch: Batch, specs: Sequence[Spec], seed: int, *,
                 settled: Sequence[KnownOutcomes] | None = None, predictors: Predictors | None = None
                 ) -> list[AttackResult]:
    """The batch under attacks that differ in epsilon only, in rising order.

    Of a classifier every verdict is predict()'s, whatever the attack believed. What is misclassified without an attack
    stays as it is and counts as wrong; what is fooled at an epsilon stays so at all larger ones, and costs no further
    pass. An attack that runs to its end takes every image at every epsilon; where it made a wrong image right, the
    clean one stands. Random draws depend on (seed, id) and the attack, not on epsilon or batch.
    settled: of each spec; images settled there are left out, and come back as they were. predictors: builds the
    predictor that a text names, for attacks made on another model.
    """
    searches = [build_attack(spec, predictors=predictors) for spec in specs]
    if not hasattr(predictor, 'logits'):
        found = []
        for spec, attack in zip(specs, searches, strict=True):
            with name_condition(spec):
                found.append(_attacked(predictor, batch, attack, seed))
        return found
    clean = _clean(predictor, batch)
    curve = [clean]
    for place, attack in enumerate(searches):
        before = clean if _to_end(attack) else curve[-1]
        curve.append(_further(predictor, batch, attack, seed, clean, before, settled and settled[place]))
    return curve[1:]


@contextmanager
def name_condition(condition: Condition | Spec) -> Iterator[None]:
    """Add a condition, or a part of one, to NonFiniteOutputs that are raised inside."""
    try:
        yield
    except NonFiniteOutputs as error:
        raise NonFiniteOutputs(error.id, ' + '.join(filter(None, (str(condition), error.condition)))) from error


def same_curve(one: Condition, other: Condition) -> bool:
    """Whether two conditions with an attack differ in its epsilon at most."""
    return (one.corruption, one.attack.without('epsilon')) == (other.corruption, other.attack.without('epsilon'))


def radius(spec: Spec) -> float:
    """The epsilon of an attack; 0 for one that has none, as a patch."""
    return float(spec.get('epsilon', 0))


def fools_further(small: Spec, large: Spec) -> bool:
    """Whether what `small` fools counts as fooled under `large`, of the same attack."""
    if small == large:
        return True
    kind = ATTACKS[large.name]  # a transfer hands run_to_end on to the attack on its source; itself it has none
    to_end = hasattr(kind, 'run_to_end') and large.get('run_to_end', kind.run_to_end)
    return radius(small) < radius(large) and not to_end


def _to_end(attack: Attack) -> bool:
    return getattr(attack, 'run_to_end', False)


def _clean(predictor: Classifier, batch: Batch) -> AttackResult:
    outputs = predictor.predict(batch.images, batch)
    return AttackResult(batch.images, outputs, _wrong(predictor, outputs, batch))


def _further(predictor: Classifier, batch: Batch, attack: Attack, seed: int, clean: AttackResult, before: AttackResult,
             settled: KnownOutcomes | None) -> AttackResult:
    """From `before` on: an attack on the images that are not wrong yet, or on all if it runs to its end."""
    wrong = before.wrong if settled is None else before.wrong | settled.wrong
    leave = wrong if not _to_end(attack) else torch.zeros_like(wrong)
    leave = leave if settled is None else leave | settled.here
    rows = (~leave).nonzero().flatten()
    images, logits = before.images.clone(), before.outputs.predictions.clone()
    if not len(rows):
        return AttackResult(images, Outputs(logits), wrong)
    part = batch.part(rows.tolist())
    found = _attacked(predictor, part, attack, seed)
    fooled = _wrong(predictor, found.outputs, part)
    better = fooled | ~clean.wrong[rows]
    images[rows[better]], logits[rows[better]] = found.images[better], found.outputs.predictions[better]
    wrong = wrong.index_copy(0, rows, wrong[rows] | fooled)
    return AttackResult(images, Outputs(logits), wrong, found.forwards, found.backwards)


def _attacked(predictor: Predictor, batch: Batch, attack: Attack, seed: int) -> AttackResult:
    counted = CountingPredictor(predictor)
    streams = BatchRng(seed, [sample.id for sample in batch.samples], device=batch.images.device)
    images = attack(counted, batch, streams)
    outputs = counted.predict(images, batch)
    return AttackResult(images, outputs, None, counted.forwards, counted.backwards)


def _wrong(predictor: Classifier, outputs: Outputs, batch: Batch) -> Tensor:
    """bool (B,). Raises ValueError for logits that are not finite: they would pass for a success of the attack."""
    bad = int((~outputs.predictions.isfinite().all(1)).sum())
    if bad:
        raise ValueError(f'expected finite logits, got NaN or infinity for {bad} of {len(batch.samples)} images, the '
                         f'first of which is {batch.samples[0].id}; check the weights')
    return outputs.predictions.argmax(1) != predictor.labels(batch)


class CountingPredictor:
    """A predictor that counts the images that its model takes forward, and those whose gradient goes back."""

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        self.forwards = self.backwards = 0

    def predict(self, images: Tensor, batch: Batch, *, trace: bool = False) -> Outputs:
        self.forwards += len(images)
        return self._predictor.predict(images, batch, trace=trace)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the predictor's; a detector has no logits here either."""
        value = getattr(self._predictor, name)
        return partial(self._asked, value) if name in ('logits', 'loss') else value

    def _asked(self, ask: Callable[..., Tensor], images: Tensor, *more: Any) -> Tensor:
        self.forwards += len(images)
        answer = ask(images, *more)
        if answer.requires_grad:
            answer.register_hook(self._went_back)
        return answer

    def _went_back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)
