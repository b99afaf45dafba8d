"""Losses of logits that attacks climb: of the label, or towards a goal. Each (n, K), (n,), (n,) or None -> (n,)."""

import logging
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-12  # keeps a quotient finite, as in the original's code
DLR_CLASSES = 4  # the targeted DLR loss divides by the spread of the four largest logits

logger = logging.getLogger(__name__)


@lru_cache(maxsize=64)
def say(sentence: str) -> None:
    """Warn, once in a process, that an attack is not quite what its name promises."""
    logger.warning(sentence)


def cross_entropy(logits: Tensor, labels: Tensor, goals: Tensor | None = None) -> Tensor:
    return F.cross_entropy(logits, labels, reduction='none')


def cross_entropy_to_goal(logits: Tensor, labels: Tensor, goals: Tensor) -> Tensor:
    """Minus the cross-entropy of the goal: 0 where the model is sure of it."""
    return -F.cross_entropy(logits, goals, reduction='none')


def margin(logits: Tensor, labels: Tensor, goals: Tensor | None = None) -> Tensor:
    """The largest other logit minus the label's: positive once the image is fooled (Carlini & Wagner 2017)."""
    true = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], float('-inf'))
    return others.amax(1) - true.squeeze(1)


def margin_to_goal(logits: Tensor, labels: Tensor, goals: Tensor) -> Tensor:
    """The goal's logit minus the label's."""
    return (logits.gather(1, goals[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)


def dlr(logits: Tensor, labels: Tensor, goals: Tensor | None = None) -> Tensor:
    """Difference of logits ratio (Croce & Hein 2020, eq. 6): the margin over the gap of the first to the third logit.

    It does not change when logits are shifted or scaled. With fewer than four classes it is the plain margin, and said.
    """
    if _too_few(logits):
        return margin(logits, labels)
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + TINY)


def dlr_to_goal(logits: Tensor, labels: Tensor, goals: Tensor) -> Tensor:
    """Targeted DLR (Croce & Hein 2020, eq. 7). With fewer than four classes the plain margin to the goal, and said."""
    if _too_few(logits):
        return margin_to_goal(logits, labels, goals)
    top = logits.topk(DLR_CLASSES, dim=1).values
    return margin_to_goal(logits, labels, goals) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + TINY)


def divergence(logits: Tensor, labels: Tensor, goals: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence from the probabilities `goals` (n, K), which TRADES climbs; without any it is 0."""
    if goals is None:
        return torch.zeros_like(logits[:, 0])
    return F.kl_div(logits.log_softmax(1), goals, reduction='none').sum(1)


def _too_few(logits: Tensor) -> bool:
    few = logits.shape[1] < DLR_CLASSES
    if few:
        say(f'DLR needs {DLR_CLASSES} classes, the model has {logits.shape[1]}: the plain margin takes its place')
    return few
