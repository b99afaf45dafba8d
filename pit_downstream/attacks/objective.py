"""Objective: the per-image value that an attack maximizes, and whether the image is fooled."""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor

from pit_downstream.attacks.losses import (
    cross_entropy,
    cross_entropy_to_goal,
    divergence,
    dlr,
    dlr_to_goal,
    margin,
    margin_to_goal,
)
from pit_downstream.utils.errors import InputError

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Batch, Classifier, Predictor

# logits (n, K), labels (n,), goals: classes (n,) or probabilities (n, K) -> (n,), maximized
LOSS_TYPES = ('all', 'cls', 'box', 'rpn', 'roi')  # loss types of a detector: det.losses
Loss = Callable[[Tensor, Tensor, Any], Tensor]


@dataclass(frozen=True)
class LossEvaluation:
    """Result of one evaluation.

    loss: (n,). fooled: bool (n,). gradient: of the loss (n, 3, H, W), None if not requested. logits: of a classifier
    (n, K), else None.
    """

    loss: Tensor
    fooled: Tensor
    gradient: Tensor | None = None
    logits: Tensor | None = None

    def get_gradient(self) -> Tensor:
        """Return the gradient of an evaluation that requested it."""
        assert self.gradient is not None
        return self.gradient

    def get_logits(self) -> Tensor:
        """Return the logits of a classifier."""
        assert self.logits is not None
        return self.logits


class Objective(Protocol):
    """Interface between a search and a predictor. images[i] is a version of the batch's image rows[i]."""

    def evaluate(self, images: Tensor, rows: Tensor, *, goals: Tensor | None = None, gradient: bool = True
                ) -> LossEvaluation:
        """Evaluate images (n, 3, H, W) in [0, 1]. rows: (n,) int64.

        goals: reference of the loss besides the label: target classes (n,), or probabilities (n, K) to move away from.
        """

    def is_misclassified(self) -> Tensor:
        """Return bool (B,): the images of the batch that are fooled without an attack."""

    def verify(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return bool (n,): whether fooled images are also fooled at the precision of the measurement."""


class ClassifierObjective:
    """Loss of the logits. An image is fooled when its largest logit is not the label's.

    width: images per forward pass, by default the batch size.
    """

    def __init__(self, predictor: 'Classifier', batch: 'Batch', loss: Loss, *, width: int | None = None):
        self.predictor, self.batch, self.loss, self.width = predictor, batch, loss, width or len(batch.images)
        self.labels = predictor.labels(batch)
        self._padded = not bool(batch.valid.all())

    def replace_loss(self, loss: str) -> 'ClassifierObjective':
        """Return a copy with another loss that shares the cached clean logits."""
        other = copy(self)
        other.loss = LOSSES[loss]
        return other

    @cached_property
    def clean_logits(self) -> Tensor:
        """Logits of the clean images (B, K), computed once."""
        with torch.no_grad():
            return torch.cat([self.predictor.logits(part) for part in self.batch.images.split(self.width)])

    @property
    def num_classes(self) -> int:
        return self.clean_logits.shape[1]

    def is_misclassified(self) -> Tensor:
        return self.clean_logits.argmax(1) != self.labels

    def rank_rivals(self, rows: Tensor) -> Tensor:
        """Return the other classes of the images (n, K - 1), most likely first."""
        others = self.clean_logits[rows].scatter(1, self.labels[rows][:, None], float('-inf'))
        return others.argsort(dim=1, descending=True, stable=True)[:, :-1]

    def evaluate(self, images: Tensor, rows: Tensor, *, goals: Tensor | None = None, gradient: bool = True
                ) -> LossEvaluation:
        labels = self.labels[rows]
        with torch.set_grad_enabled(gradient):
            inputs = self._shown(images, rows).detach().requires_grad_(gradient)
            logits = self.predictor.logits(inputs)
            loss = self.loss(logits, labels, goals)
            slope = _compute_gradient(loss, inputs) if gradient else None
        if slope is not None and self._padded:
            slope = slope * self.batch.valid[rows]
        return LossEvaluation(loss.detach(), logits.argmax(1) != labels, slope, logits.detach())

    def iterate_rivals(self, images: Tensor, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield per other class its logit minus the label's (n,) and the gradient, from one forward pass."""
        with torch.enable_grad():
            inputs = self._shown(images, rows).detach().requires_grad_()
            logits = self.predictor.logits(inputs)
        rank_rivals, labels = self.rank_rivals(rows), self.labels[rows]
        for index, goals in enumerate(rank_rivals.unbind(1)):
            with torch.enable_grad():
                difference = margin_to_goal(logits, labels, goals)
                slope = _compute_gradient(difference, inputs, again=index + 1 < rank_rivals.shape[1])
            yield difference.detach(), slope * self.batch.valid[rows] if self._padded else slope

    def verify(self, images: Tensor, rows: Tensor) -> Tensor:
        part = self.batch.part(rows.tolist())
        shown = self._shown(images, rows)
        return self.predictor.predict(shown, part).predictions.argmax(1) != self.labels[rows]

    def _shown(self, images: Tensor, rows: Tensor) -> Tensor:
        return restore_padding(images, self.batch, rows) if self._padded else images


class LossObjective:
    """Loss of the predictor itself, for models without a single verdict per image, such as detectors.

    more: further arguments of loss(), such as the loss type of a predictor that has several.
    """

    def __init__(self, predictor: 'Predictor', batch: 'Batch', *more: object):
        self.predictor, self.batch, self.more = predictor, batch, more

    def evaluate(self, images: Tensor, rows: Tensor, *, goals: Tensor | None = None, gradient: bool = True
                ) -> LossEvaluation:
        part = self.batch.part(rows.tolist())
        with torch.set_grad_enabled(gradient):
            inputs = restore_padding(images, self.batch, rows).detach().requires_grad_(gradient)
            loss = self.predictor.loss(inputs, part, *self.more)
            slope = _compute_gradient(loss, inputs) * part.valid if gradient else None
        return LossEvaluation(loss.detach(), torch.zeros_like(loss, dtype=torch.bool), slope)

    def is_misclassified(self) -> Tensor:
        return torch.zeros(len(self.batch.images), dtype=torch.bool, device=self.batch.images.device)

    def verify(self, images: Tensor, rows: Tensor) -> Tensor:
        return torch.zeros(len(images), dtype=torch.bool, device=images.device)


def make_objective(predictor: 'Predictor', batch: 'Batch', loss: str) -> Objective:
    """Return the named logit loss for a classifier, or the predictor's own loss for any other predictor.

    If the predictor has several `loss_types`, the name is one of them. The name of a classifier loss selects the first.
    """
    if not hasattr(predictor, 'logits'):
        loss_types = getattr(predictor, 'loss_types', ())
        if loss_types and loss not in (*loss_types, *LOSSES):
            raise InputError(f'loss is one of {", ".join(loss_types)} for a detector, got {loss!r}')
        return LossObjective(predictor, batch, *([loss if loss in loss_types else loss_types[0]] if loss_types else []))
    if loss not in LOSSES:
        raise InputError(f'loss is one of {", ".join(LOSSES)}, got {loss!r}')
    return ClassifierObjective(cast('Classifier', predictor), batch, LOSSES[loss])


def restore_padding(images: Tensor, batch: 'Batch', rows: Tensor) -> Tensor:
    """Restore the pixels of the batch on padding."""
    return torch.where(batch.valid[rows], images, batch.images[rows])


def _compute_gradient(loss: Tensor, images: Tensor, *, again: bool = False) -> Tensor:
    """Return the gradient of a loss (n,) with respect to the images, 0 where it is NaN or absent (cast to uint8).

    again: another gradient of the same forward pass follows.
    """
    gradient = torch.autograd.grad(loss.sum(), images, allow_unused=True, retain_graph=again)[0] \
        if loss.requires_grad else None
    return torch.zeros_like(images) if gradient is None else gradient.nan_to_num(0, 0, 0)


LOSSES: dict[str, Loss] = {
    'ce': cross_entropy, 'margin': margin, 'dlr': dlr, 'kl': divergence,
    'ce_t': cross_entropy_to_goal, 'margin_t': margin_to_goal, 'dlr_t': dlr_to_goal}
