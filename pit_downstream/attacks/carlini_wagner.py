"""Carlini & Wagner's L2 attack: the smallest fooling perturbation, with a search over the loss weight."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.attacks.adam import init_adam, step_adam
from pit_downstream.attacks.objective import Objective
from pit_downstream.attacks.search_engine import Search, State

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Batch, Predictor, Rng, Streams

SHRINK = 1 - 1e-6  # keeps atanh finite at black and white: 0.999999 in carlini/nn_robust_attacks, l2_attack.py
GROWTH = 10  # factor of the weight until an example fools, ibid.


@ATTACKS.register('cw', source='Carlini & Wagner 2017, arXiv 1608.04644; constants of carlini/nn_robust_attacks')
@dataclass(frozen=True, kw_only=True)
class CarliniWagner(Search):
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
        found = super().run(predictor, batch, rng)
        return torch.where(self.threat.is_within(found - batch.images)[:, None, None, None], found, batch.images)

    def init_state(self, objective: Objective, state: State, rng: 'Rng') -> State:
        clean, rows = state['clean'], state['row']
        point = torch.atanh((2 * clean - 1) * SHRINK)
        result = objective.evaluate(_to_image(point), rows)
        each = clean.new_ones(len(rows))
        none = torch.zeros_like(each, dtype=torch.bool)
        return {'point': point, 'gradient': result.get_gradient(), 'margin': result.loss, **init_adam(clean),
                'first': point, 'first_gradient': result.get_gradient(), 'first_margin': result.loss,
                'constant': self.constant * each, 'low': 0 * each, 'high': math.inf * each, 'hit': none,
                'found': clean, 'fooled': none, 'loss': -math.inf * each}

    def update_state(self, objective: Objective, state: State, age: Tensor, *, last: bool) -> State:
        move, memory = step_adam(state, self._compute_gradient(state), age % self.steps)
        moved = {'point': state['point'] - self.rate * move, **memory}
        images = _to_image(moved['point'])
        result = objective.evaluate(images, state['row'], gradient=not last)
        moved |= {'gradient': state['gradient'] if last else result.get_gradient(), 'margin': result.loss}
        moved |= self._compare(state, images, result.fooled & (result.loss >= self.confidence))
        done = (age + 1) % self.steps == 0
        return moved | self._update_constants(state | moved, done.to(images.device)) if bool(done.any()) else moved

    def _compute_gradient(self, state: State) -> Tensor:
        """Return the gradient of the minimized objective with respect to w."""
        images = _to_image(state['point'])
        weight = torch.where(state['margin'] <= self.confidence, state['constant'], 0)
        slope = 2 * (images - state['clean']) - weight[:, None, None, None] * state['gradient']
        return slope * 2 * images * (1 - images)  # the derivative of (tanh w + 1) / 2

    def _compare(self, state: State, images: Tensor, hit: Tensor) -> State:
        """Keep the fooling image that is nearest so far. loss: negative squared distance."""
        near = -(images - state['clean']).square().flatten(1).sum(1)
        better = hit & (near > state['loss'])
        inside = self.threat.is_within(images - state['clean'])
        return {'found': torch.where(better[:, None, None, None], images, state['found']), 'fooled': better & inside,
                'loss': torch.where(better, near, state['loss']), 'hit': state['hit'] | hit}

    def _update_constants(self, state: State, done: Tensor) -> State:
        """Set the next c of the rows that have finished the current one, and restart them."""
        constant, hit = state['constant'], state['hit']
        high = torch.where(done & hit, torch.minimum(state['high'], constant), state['high'])
        low = torch.where(done & ~hit, torch.maximum(state['low'], constant), state['low'])
        following = torch.where(high.isinf(), GROWTH * constant, (low + high) / 2)
        wide = done[:, None, None, None]
        return {'high': high, 'low': low, 'constant': torch.where(done, following, constant), 'hit': hit & ~done,
                'mean': torch.where(wide, 0, state['mean']), 'square': torch.where(wide, 0, state['square']),
                'point': torch.where(wide, state['first'], state['point']),
                'gradient': torch.where(wide, state['first_gradient'], state['gradient']),
                'margin': torch.where(done, state['first_margin'], state['margin'])}


def _to_image(point: Tensor) -> Tensor:
    return (point.tanh() + 1) / 2
