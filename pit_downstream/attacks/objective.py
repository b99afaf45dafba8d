"""Objective: the number per image that an attack climbs, and whether the image is fooled already."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from ..core.contracts import Batch, Classifier, Predictor

# logits (n, K), labels (n,), goals: classes (n,) or probabilities (n, K) -> (n,), climbed
Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Examined:
    """loss (n,); fooled bool (n,); gradient of the loss (n, 3, H, W), None where none was wanted; logits of a
    classifier (n, K), else None."""

    loss: Tensor
    fooled: Tensor
    gradient: Tensor | None = None
    logits: Tensor | None = None


class Objective(Protocol):
    """What is asked of a predictor about rows: images[i] is a version of the batch's image rows[i]."""

    def examine(self, images: Tensor, rows: Tensor, *, goals: Tensor | None = None, gradient: bool = True) -> Examined:
        """images (n, 3, H, W) in [0, 1]; rows (n,) int64.

        goals: what a loss refers to beside the label: wrong classes (n,) to aim at, probabilities (n, K) to leave.
        """

    def confirm(self, images: Tensor, rows: Tensor) -> Tensor:
        """bool (n,): whether images said to be fooled are, with the precision in which results are measured."""


class ClassifierObjective:
    """A loss of the logits. An image is fooled when its largest logit is another class's."""

    def __init__(self, predictor: 'Classifier', batch: 'Batch', loss: Loss):
        self.predictor, self.batch, self.loss = predictor, batch, loss
        self.labels = predictor.labels(batch)
        self._padded = not bool(batch.valid.all())

    def examine(self, images: Tensor, rows: Tensor, *, goals: Tensor | None = None, gradient: bool = True) -> Examined:
        labels = self.labels[rows]
        with torch.set_grad_enabled(gradient):
            asked = self._shown(images, rows).detach().requires_grad_(gradient)
            logits = self.predictor.logits(asked)
            loss = self.loss(logits, labels, goals)
            slope = _slope(loss, asked) if gradient else None
        if slope is not None and self._padded:
            slope = slope * self.batch.valid[rows]
        return Examined(loss.detach(), logits.argmax(1) != labels, slope, logits.detach())

    def confirm(self, images: Tensor, rows: Tensor) -> Tensor:
        part = self.batch.part(rows.tolist())
        shown = self._shown(images, rows)
        return self.predictor.predict(shown, part).predictions.argmax(1) != self.labels[rows]

    def _shown(self, images: Tensor, rows: Tensor) -> Tensor:
        return _unpadded(images, self.batch, rows) if self._padded else images


class LossObjective:
    """The predictor's own loss, for models that know no single verdict on an image, such as detectors."""

    def __init__(self, predictor: 'Predictor', batch: 'Batch'):
        self.predictor, self.batch = predictor, batch

    def examine(self, images: Tensor, rows: Tensor, *, goals: Tensor | None = None, gradient: bool = True) -> Examined:
        part = self.batch.part(rows.tolist())
        with torch.set_grad_enabled(gradient):
            asked = _unpadded(images, self.batch, rows).detach().requires_grad_(gradient)
            loss = self.predictor.loss(asked, part)
            slope = _slope(loss, asked) * part.valid if gradient else None
        return Examined(loss.detach(), torch.zeros_like(loss, dtype=torch.bool), slope)

    def confirm(self, images: Tensor, rows: Tensor) -> Tensor:
        return torch.zeros(len(images), dtype=torch.bool, device=images.device)


def objective_of(predictor: 'Predictor', batch: 'Batch', loss: str) -> Objective:
    """The named loss of a classifier's logits; the predictor's own loss for any other predictor."""
    if not hasattr(predictor, 'logits'):
        return LossObjective(predictor, batch)
    if loss not in LOSSES:
        raise ValueError(f'loss is one of {", ".join(LOSSES)}, got {loss!r}')
    return ClassifierObjective(predictor, batch, LOSSES[loss])


def _unpadded(images: Tensor, batch: 'Batch', rows: Tensor) -> Tensor:
    """The images as an attack may show them: on padding, whatever a search put there, they are the batch's."""
    return torch.where(batch.valid[rows], images, batch.images[rows])


def _slope(loss: Tensor, images: Tensor) -> Tensor:
    """The gradient of a loss (n,) in the images; 0 where none reaches them, as behind a cast to uint8, or it is NaN."""
    found = torch.autograd.grad(loss.sum(), images, allow_unused=True)[0] if loss.requires_grad else None
    return torch.zeros_like(images) if found is None else found.nan_to_num(0, 0, 0)


def cross_entropy(logits: Tensor, labels: Tensor, goals: Tensor | None = None) -> Tensor:
    return F.cross_entropy(logits, labels, reduction='none')


def margin(logits: Tensor, labels: Tensor, goals: Tensor | None = None) -> Tensor:
    """The largest other logit minus the label's: positive once the image is fooled (Carlini & Wagner 2017)."""
    true = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], float('-inf'))
    return others.amax(1) - true.squeeze(1)


def divergence(logits: Tensor, labels: Tensor, goals: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence from the probabilities `goals` (n, K), which TRADES climbs; without any it is 0."""
    if goals is None:
        return torch.zeros_like(logits[:, 0])
    return F.kl_div(logits.log_softmax(1), goals, reduction='none').sum(1)


LOSSES: dict[str, Loss] = {'ce': cross_entropy, 'margin': margin, 'kl': divergence}
