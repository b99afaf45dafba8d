"""Occlusion of salient image regions. It is an attack, not a corruption, because it uses the model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from pit_downstream.utils.registry import ATTACKS
from pit_downstream.attacks.base import Attack
from pit_downstream.attacks.objective import make_objective
from pit_downstream.attacks.threat_model import check_patches

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Batch, Predictor, Streams


@ATTACKS.register('occlude_salient', source='ours; salient PatchDrop, Naseer et al. 2021, uses the attention of DINO')
@dataclass(frozen=True, kw_only=True)
class OccludeSalient(Attack):
    """Occlusion of `count` cells of `side` pixels with black, those with the largest |pixel * gradient|.

    The gradient is that of the model's own loss. least: occlude the cells with the smallest values instead, as a
    control that keeps the salient regions. Misclassified images stay unchanged. At 224 pixels PatchDrop's 14 x 14 cells
    are side=16, and half of them count=98.
    """

    norms: ClassVar[tuple[str, ...]] = ('patch',)

    least: bool = False

    def run(self, predictor: 'Predictor', batch: 'Batch', rng: 'Streams') -> Tensor:
        images = batch.images
        rows = torch.arange(len(images), device=images.device)
        result = make_objective(predictor, batch, 'ce').evaluate(images, rows)
        patches = check_patches(self.threat)
        weights = patches.sum_cells((result.get_gradient() * images).abs())
        chosen = patches.select_cells(-weights if self.least else weights) & ~result.fooled[:, None, None]
        return images * ~patches.mask(chosen, images.shape)
