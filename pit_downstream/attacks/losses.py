"""Logit losses that attacks maximize. Each maps (n, K), labels (n,), goals (n,) or None to (n,)."""

import logging
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-12  # keeps a quotient finite, as in the original's code
DLR_CLASSES = 4  # the targeted DLR loss divides by the spread of the four largest logits

logger = logging.getLogger(__name__)


@lru_cache(maxsize=64)
def warn_once(sentence: str) -> None:
    """Log a warning, once per process, that an attack deviates from its definition."""
    logger.warning(sentence)


def cross_entropy(logits: Tensor, labels: Tensor, goals: Tensor | None = None) -> Tensor:
    return F.cross_entropy(logits, labels, reduction='none')


def cross_entropy_to_goal(logits: Tensor, labels: Tensor, goals: Tensor) -> Tensor:
    """Compute the negative cross-entropy of the goal, 0 when the model is certain of it."""
    return -F.cross_entropy(logits, goals, reduction='none')


def margin(logits: Tensor, labels: Tensor, goals: Tensor | None = None) -> Tensor:
    """Compute the largest other logit minus the label's, positive if the image is fooled (Carlini & Wagner 2017)."""
    true = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], float('-inf'))
    return others.amax(1) - true.squeeze(1)


def margin_to_goal(logits: Tensor, labels: Tensor, goals: Tensor) -> Tensor:
    """Compute the goal's logit minus the label's."""
    return (logits.gather(1, goals[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)


def dlr(logits: Tensor, labels: Tensor, goals: Tensor | None = None) -> Tensor:
    """Compute the difference of logits ratio (Croce & Hein 2020, eq. 6): margin / (first logit - third logit).

    It is invariant to shift and scale of the logits. With fewer than four classes it is the margin, with a warning.
    """
    if _has_too_few_classes(logits):
        return margin(logits, labels)
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + TINY)


def dlr_to_goal(logits: Tensor, labels: Tensor, goals: Tensor) -> Tensor:
    """Compute targeted DLR (Croce & Hein 2020, eq. 7), or, with a warning, the margin for under four classes."""
    if _has_too_few_classes(logits):
        return margin_to_goal(logits, labels, goals)
    top = logits.topk(DLR_CLASSES, dim=1).values
    return margin_to_goal(logits, labels, goals) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + TINY)


def divergence(logits: Tensor, labels: Tensor, goals: Tensor | None = None) -> Tensor:
    """Compute the KL divergence from the probabilities `goals` (n, K), as in TRADES, or 0 without goals."""
    if goals is None:
        return torch.zeros_like(logits[:, 0])
    return F.kl_div(logits.log_softmax(1), goals, reduction='none').sum(1)


def _has_too_few_classes(logits: Tensor) -> bool:
    few = logits.shape[1] < DLR_CLASSES
    if few:
        warn_once(f'DLR needs {DLR_CLASSES} classes, the model has {logits.shape[1]}: the plain margin takes its place')
    return few
