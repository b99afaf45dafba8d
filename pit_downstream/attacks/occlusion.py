"""Occlusion of what a model looks at: an attack, not a corruption, because it asks the model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.registry import ATTACKS
from .base import Attack
from .objective import objective_of

if TYPE_CHECKING:
    from ..core.contracts import Batch, Predictor, Streams


@ATTACKS.register('occlude_salient', source='ours; salient PatchDrop, Naseer et al. 2021, asks the attention of DINO')
@dataclass(frozen=True, kw_only=True)
class OccludeSalient(Attack):
    """A share of cells x cells becomes black: those whose pixels times gradient are largest, or with `least` smallest.

    The gradient is that of the loss of the model itself. epsilon=1 under Linf lets the cells be black; within a smaller
    ball they are as dark as it allows. `least` is the control: what the model looks at stays.
    """

    share: float = .5
    cells: int = 14  # as in the source: 16 pixels each at 224
    least: bool = False

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise ValueError(f'share is above 0 and at most 1, got {self.share!r}')
        if not 1 <= self.cells <= 32:
            raise ValueError(f'cells is 1..32 per side, got {self.cells!r}')

    def run(self, predictor: 'Predictor', batch: 'Batch', rng: 'Streams') -> Tensor:
        images = batch.images
        rows = torch.arange(len(images), device=images.device)
        gradient = objective_of(predictor, batch, 'ce').examine(images, rows).gradient
        cell = self._cells(images)
        weights = images.new_zeros(len(images), self.cells ** 2).index_add_(
            1, cell, (gradient * images).abs().sum(1).flatten(1))
        ranks = weights.argsort(dim=1, descending=not self.least, stable=True).argsort(1)
        black = ranks < max(1, round(self.share * self.cells ** 2))
        return images * ~black[:, cell].view(len(images), 1, *images.shape[-2:])

    def _cells(self, images: Tensor) -> Tensor:
        """The number of the cell that each pixel belongs to, (H * W,)."""
        rows, columns = (torch.arange(side, device=images.device) * self.cells // side for side in images.shape[-2:])
        return (rows[:, None] * self.cells + columns).flatten()
