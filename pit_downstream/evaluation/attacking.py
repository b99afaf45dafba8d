"""Attack a batch at every epsilon of a curve, and count the model passes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from pit_downstream import attacks  # noqa: F401  registers them
from pit_downstream.attacks.base import Attack, Predictors, build_attack
from pit_downstream.results.condition import Condition
from pit_downstream.results.records import get_model_key
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Batch, Classifier, NonFiniteOutputs, Outputs, Predictor
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.utils.spec import Spec
from pit_downstream.utils.rng import BatchRng


@dataclass(frozen=True)
class AttackResult:
    """Result of an attack on a batch at one epsilon.

    `images` is (B, 3, H, W) in [0, 1], `outputs` the predictor's outputs for them. `wrong` is bool (B,), for
    classifiers only. `forwards` and `backwards` count images in forward and backward passes, for the search and the
    verdict.
    """

    images: Tensor
    outputs: Outputs
    wrong: Tensor | None = None
    forwards: int = 0
    backwards: int = 0


@dataclass(frozen=True)
class KnownOutcomes:
    """Outcomes known before an attack, bool (B,) each.

    `is_known`: the verdict at this epsilon is known. `wrong`: the image is misclassified at this epsilon or, unless the
    attack runs to its end, at a smaller one.
    """

    is_known: Tensor
    wrong: Tensor


def check_attack(spec: Spec | None, predictors: Predictors | None = None) -> None:
    """Raise InputError unless `spec` has a known attack, its size and no unknown arguments."""
    if spec is not None:
        build_attack(spec, predictors=predictors)


def complete_attack(text: str, *, source: str | None = None, predictors: Predictors | None = None) -> Spec:
    """Return an attack with its default arguments, as a transfer if `source` is given and the attack uses a model.

    A transfer names its source by the key that identifies the weights, so that records never mix two sources.

    Args:
        text: Name with arguments.
        source: Name of the classifier on which the adversarial images are computed.
        predictors: Builds the source by its name.
    """
    spec = Spec.parse(text)
    attack = ATTACKS[spec.name]
    usual = {'norm': 'patch'} if attack.norms == ('patch',) else getattr(attack, 'usual', {})
    spec = Spec.of(spec.name, **{**usual, **dict(spec.kwargs)})
    if source is not None and spec.name not in ('noise', 'transfer'):
        spec = Spec.of('transfer', **{**dict(spec.kwargs), 'attack': spec.name, 'source': source})
    name = spec.get('source')
    if predictors is None or spec.name != 'transfer' or not isinstance(name, str):
        return spec
    return Spec.of(spec.name, **{**dict(spec.kwargs), 'source': get_model_key(predictors(name).name)})


def attack_curve(predictor: Predictor, batch: Batch, specs: Sequence[Spec], seed: int, *,
                 known: Sequence[KnownOutcomes] | None = None, predictors: Predictors | None = None
                 ) -> Iterator[AttackResult]:
    """Attack a batch with attacks that differ only in epsilon, in rising order. Yield the result of each.

    Every verdict on a classifier comes from predict(), independent of the attack's own result. An image misclassified
    without an attack is not changed and counts as wrong. An image fooled at one epsilon stays fooled at all larger ones
    without further passes. An attack that runs to its end takes every image at every epsilon. If it makes a wrong image
    right, the clean image is used. Random draws depend on (seed, id) and the attack, not on epsilon or batch.

    Args:
        known: Known outcomes per spec. Images with a known outcome at an epsilon are skipped and returned as they
            were.
        predictors: Builds a predictor by name, for transfer attacks.
    """
    searches = [build_attack(spec, predictors=predictors) for spec in specs]
    if not hasattr(predictor, 'logits'):
        for spec, attack in zip(specs, searches, strict=True):
            with name_condition(spec):
                result = _run_attack(predictor, batch, attack, seed)
            yield result
        return
    predictor = cast(Classifier, predictor)
    clean = previous = _predict_clean(predictor, batch)
    for index, attack in enumerate(searches):
        start = clean if _runs_to_end(attack) else previous
        previous = _attack_remaining(predictor, batch, attack, seed, clean, start, known[index] if known else None)
        yield previous


@contextmanager
def name_condition(condition: Condition | Spec) -> Iterator[None]:
    """Add a condition, or a part of one, to a NonFiniteOutputs error raised in the block."""
    try:
        yield
    except NonFiniteOutputs as error:
        raise NonFiniteOutputs(error.id, ' + '.join(filter(None, (str(condition), error.condition)))) from error


def get_attack(condition: Condition) -> Spec:
    """Return the attack of a condition that has one."""
    assert condition.attack is not None, condition
    return condition.attack


def is_same_curve(condition: Condition, other: Condition) -> bool:
    """Return whether two conditions with an attack differ at most in its epsilon."""
    first, second = ((one.corruption, get_attack(one).without('epsilon')) for one in (condition, other))
    return first == second


def get_radius(spec: Spec) -> float:
    """Return the epsilon of an attack, 0 for attacks without one, such as a patch."""
    return float(cast(float | Fraction, spec.get('epsilon', 0)))


def implies_success(small: Spec, large: Spec) -> bool:
    """Return whether an image fooled by `small` counts as fooled under `large`, both of one attack."""
    if small == large:
        return True
    kind = ATTACKS[large.name]  # a transfer passes run_to_end to the attack on its source and has none itself
    to_end = hasattr(kind, 'run_to_end') and large.get('run_to_end', kind.run_to_end)
    return get_radius(small) < get_radius(large) and not to_end


def _runs_to_end(attack: Attack) -> bool:
    return getattr(attack, 'run_to_end', False)


def _predict_clean(predictor: Classifier, batch: Batch) -> AttackResult:
    outputs = predictor.predict(batch.images, batch)
    return AttackResult(batch.images, outputs, _wrong(predictor, outputs, batch))


def _attack_remaining(predictor: Classifier, batch: Batch, attack: Attack, seed: int, clean: AttackResult,
                      before: AttackResult, known: KnownOutcomes | None) -> AttackResult:
    """Attack the images of `before` that are not wrong yet, or all images if the attack runs to its end."""
    assert clean.wrong is not None and before.wrong is not None  # known for classifiers
    wrong = before.wrong if known is None else before.wrong | known.wrong
    leave = wrong if not _runs_to_end(attack) else torch.zeros_like(wrong)
    leave = leave if known is None else leave | known.is_known
    rows = (~leave).nonzero().flatten()
    images, logits = before.images.clone(), before.outputs.predictions.clone()
    if not len(rows):
        return AttackResult(images, Outputs(logits), wrong)
    part = batch.part(rows.tolist())
    found = _run_attack(predictor, part, attack, seed)
    fooled = _wrong(predictor, found.outputs, part)
    better = fooled | ~clean.wrong[rows]
    images[rows[better]], logits[rows[better]] = found.images[better], found.outputs.predictions[better]
    wrong = wrong.index_copy(0, rows, wrong[rows] | fooled)
    return AttackResult(images, Outputs(logits), wrong, found.forwards, found.backwards)


def _run_attack(predictor: Predictor, batch: Batch, attack: Attack, seed: int) -> AttackResult:
    counted = CountingPredictor(predictor)
    streams = BatchRng(seed, [sample.id for sample in batch.samples], device=batch.images.device)
    images = attack(counted, batch, streams)
    outputs = counted.predict(images, batch)
    return AttackResult(images, outputs, None, counted.forwards, counted.backwards)


def _wrong(predictor: Classifier, outputs: Outputs, batch: Batch) -> Tensor:
    """Return misclassified images, bool (B,).

    Raises InputError for logits that are not finite, since they would count as a success of the attack.
    """
    bad = int((~outputs.predictions.isfinite().all(1)).sum())
    if bad:
        raise InputError(f'expected finite logits, got NaN or infinity for {bad} of {len(batch.samples)} images, the '
                         f'first of which is {batch.samples[0].id}; check the weights')
    return outputs.predictions.argmax(1) != predictor.labels(batch)


class CountingPredictor:
    """A predictor that counts the images in forward passes and those in backward passes."""

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        self.forwards = self.backwards = 0

    def predict(self, images: Tensor, batch: Batch, *, trace: bool = False) -> Outputs:
        self.forwards += len(images)
        return self._predictor.predict(images, batch, trace=trace)

    def __getattr__(self, name: str) -> Any:
        """Return other attributes of the wrapped predictor. A detector has no logits here either."""
        value = getattr(self._predictor, name)
        return partial(self._count_query, value) if name in ('logits', 'loss') else value

    def _count_query(self, ask: Callable[..., Tensor], images: Tensor, *more: Any) -> Tensor:
        self.forwards += len(images)
        answer = ask(images, *more)
        if answer.requires_grad:
            answer.register_hook(self._went_back)
        return answer

    def _went_back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)
