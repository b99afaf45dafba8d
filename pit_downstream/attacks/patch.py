"""Adversarial patches: a few square cells with arbitrary pixels."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.attacks.adam import AdamState
from pit_downstream.attacks.objective import ClassifierObjective, LossEvaluation, Objective
from pit_downstream.attacks.search_engine import Search
from pit_downstream.attacks.search_state import ActiveSamples, GradientState
from pit_downstream.attacks.threat_model import SMALLEST, check_patches

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Batch, Predictor, Rng, Streams, Traceable

RATE = .05  # Patch-Fool's 0.22 is in units of ImageNet's standard deviation, which is 0.225
SLOWER = (10, .95)  # interval in steps, and factor of the rate: GATECH-EIC/Patch-Fool, main.py


@dataclass(kw_only=True)
class PatchState(GradientState):
    """State of a patch search. mask: bool (n, 1, H, W), the pixels of the selected cells."""

    mask: Tensor
    adam: AdamState


@ATTACKS.register('patch', source='Brown et al. 2017, arXiv 1712.09665; per image and on the grid of a ViT')
@dataclass(frozen=True, kw_only=True)
class Patch(Search[PatchState]):
    """Adam on the pixels of `count` cells of `side` pixels, from random values.

    place: selection of the cells: 'salient' (largest gradient on the clean image), 'random', 'center' (nearest to the
    center) or 'corner' (upper left). rate: learning rate of Adam, in pixel scale. It decays by 5 % every 10 steps.
    """

    norms: ClassVar[tuple[str, ...]] = ('patch',)
    places: ClassVar[tuple[str, ...]] = ('salient', 'random', 'center', 'corner')

    steps: int = 250
    place: str = 'salient'
    rate: float = RATE

    def __post_init__(self):
        super().__post_init__()
        if self.place not in self.places:
            raise InputError(f'place is one of {", ".join(self.places)}, got {self.place!r}')
        if self.rate <= 0:
            raise InputError(f'rate is above 0, got {self.rate}')

    def init_state(self, objective: Objective, samples: ActiveSamples, rng: 'Rng') -> PatchState:
        clean = samples.clean
        patches = check_patches(self.threat)
        chance = rng.uniform((len(clean), *patches.sum_cells(clean[:1]).shape[1:]))
        mask = patches.mask(patches.select_cells(self._score_cells(objective, samples, chance)), clean.shape)
        images = torch.where(mask, rng.uniform(clean.shape), clean)
        result = self._evaluate(objective, images, samples.row, mask, gradient=True)
        return PatchState(samples=samples, adversarial=images, fooled=result.fooled, loss=result.loss,
                          gradient=result.get_gradient(), mask=mask, adam=AdamState.zeros_like(clean))

    def update_state(self, objective: Objective, state: PatchState, age: Tensor, *, last: bool) -> None:
        # without normalization, Adam's epsilon exceeds the small gradients of a confident model
        slope = state.gradient * state.mask
        slope = slope / slope.abs().amax((1, 2, 3), keepdim=True).clamp_min(SMALLEST)
        rate = self.rate * SLOWER[1] ** (age // SLOWER[0]).to(slope)
        images = (state.adversarial + rate.view(-1, 1, 1, 1) * state.adam.step(slope, age)).clamp(0, 1)
        images = torch.where(state.mask, images, state.clean)
        state.move(images, self._evaluate(objective, images, state.row, state.mask, gradient=not last))

    def _score_cells(self, objective: Objective, samples: ActiveSamples, chance: Tensor) -> Tensor:
        """Return scores (n, h, w). The cells with the highest are selected. chance: (n, h, w) in [0, 1)."""
        if self.place == 'random':
            return chance
        if self.place == 'salient':
            gradient = objective.evaluate(samples.clean, samples.row).get_gradient()
            return check_patches(self.threat).sum_cells(gradient.abs())
        rows, columns = (torch.arange(count, device=chance.device) - (self.place == 'center') * (count - 1) / 2
                         for count in chance.shape[1:])
        return -(rows[:, None] ** 2 + columns ** 2).expand_as(chance)

    def _evaluate(self, objective: Objective, images: Tensor, rows: Tensor, mask: Tensor, *, gradient: bool
                  ) -> LossEvaluation:
        return objective.evaluate(images, rows, gradient=gradient)


@ATTACKS.register('patch_fool', source='Fu et al. 2022, arXiv 2203.08392; constants of GATECH-EIC/Patch-Fool')
@dataclass(frozen=True, kw_only=True)
class PatchFool(Patch):
    """Patch that also attracts attention, in the style of Patch-Fool, for models with traceable attention.

    The gradient of the loss is combined with that of the log attention on the patch. Attention is averaged over heads
    and queries, in the blocks of the first half except the first. Where both conflict, the component against the loss
    is removed (PCGrad, Yu et al. 2020, once for the sum over the blocks; the authors' code does so block by block, and
    divides by the norm where PCGrad divides by its square). On pooled grids such as PiT's, tokens are weighted by their
    coverage by the patch. attention: weight of this term. place: 'attention' selects the cells with the most attention
    in block `layer`, counted from 0.
    """

    places: ClassVar[tuple[str, ...]] = ('attention', *Patch.places)

    place: str = 'attention'
    attention: float = .002
    layer: int = 4

    def __post_init__(self):
        super().__post_init__()
        if self.attention < 0 or self.layer < 0:
            raise InputError(f'attention and layer are 0 or more, got {self.attention} and {self.layer}')

    def run(self, predictor: 'Predictor', batch: 'Batch', rng: 'Streams') -> Tensor:
        if (self.attention or self.place == 'attention') and not hasattr(predictor, 'tracing'):
            raise InputError(f'expected a classifier that can be traced, got {predictor.name}; take patch, or '
                             "patch_fool(attention=0, place='salient')")
        return super().run(predictor, batch, rng)

    def _score_cells(self, objective: Objective, samples: ActiveSamples, chance: Tensor) -> Tensor:
        if self.place != 'attention':
            return super()._score_cells(objective, samples, chance)
        predictor = _get_traceable(objective)
        with predictor.tracing() as trace:
            predictor.logits(samples.clean)
        maps = trace.maps['softmax']
        if self.layer >= len(maps):
            raise InputError(f'layer is 0..{len(maps) - 1} in this model, got {self.layer}')
        name, attention = list(maps.items())[self.layer]
        received = attention.mean((1, 2))[:, trace.count_prefix_tokens(name):].unflatten(1, trace.grids[name])
        rows, columns = chance.shape[1:]
        return F.adaptive_avg_pool2d(received[:, None], (rows, columns)).squeeze(1)

    def _evaluate(self, objective: Objective, images: Tensor, rows: Tensor, mask: Tensor, *, gradient: bool
                  ) -> LossEvaluation:
        result = super()._evaluate(objective, images, rows, mask, gradient=gradient)
        if not gradient or not self.attention:
            return result
        slope = result.get_gradient() * mask
        pull = self._compute_attention_gradient(_get_traceable(objective), images, mask) * mask
        return replace(result, gradient=slope + self.attention * remove_conflict(pull, slope))

    def _compute_attention_gradient(self, predictor: 'Traceable', images: Tensor, mask: Tensor) -> Tensor:
        """Compute the gradient (n, 3, H, W) of the log attention on the patch."""
        with torch.enable_grad(), predictor.tracing() as trace:
            inputs = images.detach().requires_grad_()
            predictor.logits(inputs)
            maps = list(trace.maps['softmax'].items())
            total = inputs.sum((1, 2, 3)) * 0
            for name, attention in maps[1:len(maps) // 2]:
                cover = F.adaptive_avg_pool2d(mask.to(attention.dtype), trace.grids[name]).flatten(1)
                received = attention.mean(1)[:, :, trace.count_prefix_tokens(name):] @ cover[:, :, None]
                total = total + received.clamp_min(SMALLEST).log().mean((1, 2))
            return torch.autograd.grad(total.sum(), inputs)[0]


def _get_traceable(objective: Objective) -> 'Traceable':
    """Return the predictor of the objective. run() has checked that it is traceable."""
    return cast('Traceable', cast(ClassifierObjective, objective).predictor)


def remove_conflict(pull: Tensor, slope: Tensor) -> Tensor:
    """Remove from `pull` (n, ...) its component against `slope`, row by row."""
    along = (pull * slope).flatten(1).sum(1)
    share = along.clamp_max(0) / slope.square().flatten(1).sum(1).clamp_min(SMALLEST)
    return pull - share.view(-1, *[1] * (pull.ndim - 1)) * slope
