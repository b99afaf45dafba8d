"""Carlini & Wagner's L2 attack: the smallest fooling perturbation, with a search over the loss weight."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.attacks.adam import AdamState
from pit_downstream.attacks.objective import Objective
from pit_downstream.attacks.search_engine import Search
from pit_downstream.attacks.search_state import ActiveSamples, SearchState
from pit_downstream.attacks.threat_model import choose

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Batch, Predictor, Rng, Streams

SHRINK = 1 - 1e-6  # keeps atanh finite at black and white: 0.999999 in carlini/nn_robust_attacks, l2_attack.py
GROWTH = 10  # factor of the weight until an example fools, ibid.


@dataclass(kw_only=True)
class CarliniWagnerState(SearchState):
    """State of Carlini & Wagner's attack. loss: negative squared distance of the result, -inf without one.

    point: w of the current image. gradient, margin: of the loss at this image. first_...: the same at the start.
    constant: c, with bounds low and high of its bisection. has_success: bool (n,), whether an image fooled with this c.
    """

    point: Tensor
    gradient: Tensor
    margin: Tensor
    first_point: Tensor
    first_gradient: Tensor
    first_margin: Tensor
    adam: AdamState
    constant: Tensor
    low: Tensor
    high: Tensor
    has_success: Tensor


@ATTACKS.register('cw', source='Carlini & Wagner 2017, arXiv 1608.04644; constants of carlini/nn_robust_attacks')
@dataclass(frozen=True, kw_only=True)
class CarliniWagner(Search[CarliniWagnerState]):
    """Carlini & Wagner's L2 attack.

    Adam minimizes ||x' - x||^2 + c max(confidence - margin, 0) over w with x' = (tanh w + 1) / 2. c is bisected.
    An image without an example inside the ball stays clean. A search stops at its first example inside the ball;
    run_to_end continues to the smallest one.

    steps: Adam steps for each c (10000 in the authors' code). searches: number of values of c. constant: first c.
    rate: learning rate of Adam.
    """

    norms: ClassVar[tuple[str, ...]] = ('L2',)
    needs_logits: ClassVar[bool] = True

    steps: int = 1000
    searches: int = 9
    rate: float = .01
    constant: float = 1e-3
    confidence: float = 0.
    loss: str = field(default='margin', init=False)

    def __post_init__(self):
        super().__post_init__()
        for name, good, words in (('searches', self.searches >= 1, '1 or more'), ('rate', self.rate > 0, 'above 0'),
                                  ('constant', self.constant > 0, 'above 0'),
                                  ('confidence', self.confidence >= 0, '0 or more')):
            if not good:
                raise InputError(f'{name} is {words}, got {getattr(self, name)}')

    @property
    def num_steps(self) -> int:
        return self.steps * self.searches

    def run(self, predictor: 'Predictor', batch: 'Batch', rng: 'Streams') -> Tensor:
        nearest = super().run(predictor, batch, rng)
        return choose(self.threat.is_within(nearest - batch.images), nearest, batch.images)

    def init_state(self, objective: Objective, samples: ActiveSamples, rng: 'Rng') -> CarliniWagnerState:
        point = torch.atanh((2 * samples.clean - 1) * SHRINK)
        result = objective.evaluate(_to_image(point), samples.row)
        gradient, ones = result.get_gradient(), samples.clean.new_ones(len(samples.row))
        false = torch.zeros_like(ones, dtype=torch.bool)
        return CarliniWagnerState(
            samples=samples, adversarial=samples.clean, fooled=false, loss=-math.inf * ones, point=point,
            gradient=gradient, margin=result.loss, first_point=point, first_gradient=gradient, first_margin=result.loss,
            adam=AdamState.zeros_like(samples.clean), constant=self.constant * ones, low=0 * ones, high=math.inf * ones,
            has_success=false)

    def update_state(self, objective: Objective, state: CarliniWagnerState, age: Tensor, *, last: bool) -> None:
        state.point = state.point - self.rate * state.adam.step(self._compute_gradient(state), age % self.steps)
        images = _to_image(state.point)
        result = objective.evaluate(images, state.row, gradient=not last)
        state.margin = result.loss
        if result.gradient is not None:
            state.gradient = result.gradient
        self._select_nearest(state, images, result.fooled & (result.loss >= self.confidence))
        done = (age + 1) % self.steps == 0
        if bool(done.any()):
            self._update_constants(state, done.to(images.device))

    def _compute_gradient(self, state: CarliniWagnerState) -> Tensor:
        """Return the gradient of the minimized objective with respect to w."""
        images = _to_image(state.point)
        weight = torch.where(state.margin <= self.confidence, state.constant, 0)
        slope = 2 * (images - state.clean) - weight[:, None, None, None] * state.gradient
        return slope * 2 * images * (1 - images)  # the derivative of (tanh w + 1) / 2

    def _select_nearest(self, state: CarliniWagnerState, images: Tensor, success: Tensor) -> None:
        """Set the result to the nearest fooling image so far. success: bool (n,), whether the new images fool."""
        delta = images - state.clean
        nearness = -delta.square().flatten(1).sum(1)
        better = success & (nearness > state.loss)
        state.adversarial = choose(better, images, state.adversarial)
        state.fooled = better & self.threat.is_within(delta)
        state.loss = torch.where(better, nearness, state.loss)
        state.has_success = state.has_success | success

    def _update_constants(self, state: CarliniWagnerState, done: Tensor) -> None:
        """Set the next c of the rows that have finished the current one, and restart them."""
        success = state.has_success
        state.high = torch.where(done & success, torch.minimum(state.high, state.constant), state.high)
        state.low = torch.where(done & ~success, torch.maximum(state.low, state.constant), state.low)
        following = torch.where(state.high.isinf(), GROWTH * state.constant, (state.low + state.high) / 2)
        state.constant = torch.where(done, following, state.constant)
        state.has_success = success & ~done
        wide = done[:, None, None, None]
        state.adam.mean = torch.where(wide, 0, state.adam.mean)
        state.adam.square = torch.where(wide, 0, state.adam.square)
        state.point = torch.where(wide, state.first_point, state.point)
        state.gradient = torch.where(wide, state.first_gradient, state.gradient)
        state.margin = torch.where(done, state.first_margin, state.margin)


def _to_image(point: Tensor) -> Tensor:
    return (point.tanh() + 1) / 2
