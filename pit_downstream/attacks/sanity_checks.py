"""Sanity checks of an evaluation: of a model before it is attacked, and of the results.

Based on auto-attack's checks.py and the signs of Athalye et al. 2018 (arXiv 1802.00420, section 3.1) and Carlini et al.
2019 (arXiv 1902.06705, section 4.2). Warnings are sentences. Problems that invalidate every result raise an error.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import Spec
from pit_downstream.attacks.base import eval_mode, clone_inference_tensors
from pit_downstream.attacks.objective import ClassifierObjective, LossEvaluation, cross_entropy, margin

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Batch, Classifier

CLOSE = 1e-4  # largest difference of equal outputs, relative to the logits: auto-attack's checks.py, there absolute
ROUNDING = 4  # same, in eps of the precision: PiT's logits in bfloat16 are up to 1.6 from float32, in either pass
FEW = 10  # minimum number of images for the accuracy check
BLIND = ('noise', 'transfer')  # no queries to the model: a small gain with epsilon is a weakness of the attack
BLACK_BOX = ('square', *BLIND)  # use no gradient of the model
ONE_STEP = 'fgsm'
STEPS = ('pgd', 'bim', 'mim', 'apgd', 'apgd_t')  # follow the gradient in steps


def check_before(predictor: 'Classifier', batch: 'Batch') -> tuple[str, ...]:
    """Return warnings about a classifier that make attacks on it appear weaker than they are.

    Costs four forward and two backward passes over the batch. Raises InputError if images are not in [0, 1] or logits
    are not finite numbers (B, K).
    """
    images = batch.images
    if not (images.isfinite().all() and images.min() >= 0 and images.max() <= 1):
        raise InputError(f'expected images in [0, 1], got {images.min():.3g} .. {images.max():.3g}; normalize inside '
                         'the model, so that epsilon is in pixels')
    warnings = list(_check_mode(predictor))
    with torch.inference_mode(False), eval_mode(predictor), torch.no_grad():
        batch = clone_inference_tensors(batch)
        images = batch.images
        logits = predictor.logits(images)
        if logits.ndim != 2 or len(logits) != len(images) or not logits.isfinite().all():
            values = '' if logits.isfinite().all() else ' with NaN or infinity among them'
            raise InputError(f'expected finite logits ({len(images)}, classes), got {tuple(logits.shape)}{values}; '
                             'attack a classifier')
        close = max(CLOSE, ROUNDING * torch.finfo(getattr(predictor, 'precision', torch.float32)).eps)
        warnings += [*_check_outputs(logits, close), *_check_consistency(predictor, images, logits, close),
                  *_check_accuracy(logits, predictor.labels(batch))]
        warnings += _check_gradients(predictor, batch)
    return tuple(warnings)


def _check_mode(predictor: 'Classifier') -> Iterator[str]:
    model = getattr(predictor, 'model', None)
    training = [name or 'the model' for name, module in model.named_modules() if module.training] if model else []
    if training:
        yield (f'{len(training)} modules are in training mode, the first of which is {training[0]}: attacks and '
               'results are those of evaluation mode')


def _check_outputs(logits: Tensor, close: float) -> Iterator[str]:
    if logits.min() >= 0 and (logits.sum(1) - 1).abs().max() < close:
        yield ('the model gives probabilities, not logits: their gradients vanish where it is confident; take the '
               'softmax away')


def _check_consistency(predictor: 'Classifier', images: Tensor, logits: Tensor, close: float) -> Iterator[str]:
    """Check that a second pass, and a pass of the first image alone, return the same logits."""
    allowed = close * logits.abs().max().clamp_min(1)
    if (predictor.logits(images) - logits).abs().max() > allowed:
        yield ("the output changes from pass to pass: one gradient is noise; use autoattack(version='rand'), which "
               'averages them, and repeat the measurement')
    elif len(images) > 1 and (predictor.logits(images[:1]) - logits[:1]).abs().max() > allowed:
        yield 'the output for an image depends on the others of its batch: verdicts will change with the batch size'


def _check_accuracy(logits: Tensor, labels: Tensor) -> Iterator[str]:
    count = len(labels)
    right = int((logits.argmax(1) == labels).sum())
    if count >= FEW and right * logits.shape[1] <= count:
        yield (f'{right} of {count} clean images are right, no more than by chance among {logits.shape[1]} classes: '
               'check labels, weights and normalization')


def _check_gradients(predictor: 'Classifier', batch: 'Batch') -> Iterator[str]:
    rows = torch.arange(len(batch.images), device=batch.images.device)
    entropy, direct = (ClassifierObjective(predictor, batch, loss).evaluate(batch.images, rows)
                       for loss in (cross_entropy, margin))
    right = ~entropy.fooled
    flat, cut = (_find_vanishing(result) & right for result in (entropy, direct))
    count = int(right.sum())
    if cut.any():
        yield (f'no gradient reaches {int(cut.sum())} of {count} images, as behind rounding: gradient attacks fail '
               'there, which is no robustness; rely on square and transfer, or attack a smooth approximation')
    if (flat & ~cut).any():
        largest = entropy.get_logits().abs().max()
        yield (f'the cross-entropy of {int((flat & ~cut).sum())} of {count} images has no gradient, since the logits '
               f'are too large (up to {largest:.3g}): attacks on it see nothing there, which is no '
               "robustness; trust loss='margin', loss='dlr', fab and square")


def _find_vanishing(result: LossEvaluation) -> Tensor:
    """Return bool (n,): whether half of the gradient or more is exactly 0. Padding and black borders are less."""
    return (result.get_gradient() == 0).flatten(1).double().mean(1) > .5


def check_after(accuracies: Mapping[Spec, float], count: int) -> tuple[str, ...]:
    """Return warnings about robust accuracies that indicate masked gradients.

    accuracies: by Spec of the attack, including norm and epsilon, all on the same `count` images. A difference of one
    image is ignored.
    """
    slack = 1.5 / max(count, 1)
    by_ball: dict[tuple, dict[Spec, float]] = {}
    for spec, accuracy in accuracies.items():
        by_ball.setdefault((spec.get('norm', 'Linf'), spec.get('epsilon')), {})[spec] = accuracy
    warnings = [warning for ball in by_ball.values() for warning in _compare_attacks(ball, slack)]
    return (*warnings, *_compare_epsilons(accuracies, slack))


def _compare_attacks(ball: Mapping[Spec, float], slack: float) -> Iterator[str]:
    black, one, steps = (min(((accuracy, spec) for spec, accuracy in ball.items() if spec.name in names), default=None)
                         for names in (BLACK_BOX, (ONE_STEP,), STEPS))
    if black and steps and black[0] < steps[0] - slack:
        yield (f'{_format_accuracy(*black)} uses no gradient and beats {_format_accuracy(*steps)}: gradients are '
               'masked, and attacks that follow them are meaningless')
    if one and steps and one[0] < steps[0] - slack:
        yield (f'one step, {_format_accuracy(*one)}, beats many, {_format_accuracy(*steps)}: gradients are masked, or '
               'the steps are too few or too short')


def _compare_epsilons(accuracies: Mapping[Spec, float], slack: float) -> Iterator[str]:
    """Check that attacks gain from an epsilon at least twice as large while robust images remain."""
    curves: dict[Spec, list[tuple[float, float]]] = {}
    for spec, accuracy in accuracies.items():
        epsilon = spec.get('epsilon')
        if spec.name not in BLIND and isinstance(epsilon, (int, float, Fraction)):
            curves.setdefault(spec.without('epsilon'), []).append((float(epsilon), accuracy))
    for spec, curve in curves.items():
        for (small, before), (large, after) in pairwise(sorted(curve)):
            if after > before + slack:
                yield (f'{spec} fools fewer images at epsilon {large:.4g} than at {small:.4g}: it does not converge, '
                       'or gradients are masked')
            elif large >= 2 * small > 0 and after > max(before - slack, slack):
                yield (f'{spec} leaves {after:.1%} right at epsilon {large:.4g}, as at {small:.4g}: a larger ball '
                       'should fool more images; gradients may be masked')


def check_cascade(left: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """Return warnings if a black-box member of an ensemble fools images that withstood all members before it.

    left: names and numbers of robust images after each member, in order. One image is ignored. Based on auto-attack's
    check_square_sr, which counts over a whole dataset.
    """
    return tuple(f'{name} uses no gradient and fools images that withstood all attacks before it: gradients are '
                 'masked, and the robust accuracy is likely lower still'
                 for (_, before), (name, after) in pairwise(left) if name in BLACK_BOX and before - after > 1)


def _format_accuracy(accuracy: float, spec: Spec) -> str:
    return f'{spec} ({accuracy:.1%} right)'
