"""FAB: steps across the decision boundary, increasingly close to the clean image.

Croce & Hein 2020, arXiv 1907.02044. Follows fra31/auto-attack a392200, fab_base.py.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.attacks.apgd import select_goals, count_targets
from pit_downstream.attacks.projections import TINY, project_to_plane
from pit_downstream.attacks.objective import ClassifierObjective, Objective
from pit_downstream.attacks.search_engine import Search, State
from pit_downstream.attacks.threat_model import choose

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng

DUAL = {'Linf': 1, 'L2': 2, 'L1': math.inf}  # norm of the plane's normal in the distance formula
SHORTEST = 1e-8  # lower bound of a distance when two are weighted


@ATTACKS.register('fab', source='Croce & Hein 2020, arXiv 1907.02044')
@dataclass(frozen=True, kw_only=True)
class FAB(Search):
    """FAB attack towards the nearest other class at every step, with one backward pass per other class.

    It minimizes the distance. epsilon only decides success. restarts: searches per image, the first from the image.
    nearer: maximum weight of the projection from the clean image. beyond: overshoot factor of the projections. back:
    share of the distance that is left after a step back to the clean image.
    """

    needs_logits: ClassVar[bool] = True
    losses: ClassVar[tuple[str, ...]] = ('margin',)

    steps: int = 100
    restarts: int = 1
    loss: str = 'margin'
    nearer: float = 0.1
    beyond: float = 1.05
    back: float = 0.9

    def __post_init__(self):
        super().__post_init__()
        if self.restarts < 1:
            raise InputError(f'restarts is 1 or more, got {self.restarts}')

    def count_searches(self, objective: Objective) -> int:
        return self.restarts * min(1, count_targets(objective, 1))

    def init_goals(self, objective: Objective, state: State) -> State:
        return {}

    def init_state(self, objective: Objective, state: State, rng: 'Rng') -> State:
        update = self.init_goals(objective, state)
        at = self._draw_start(state, rng)
        update |= dict(zip(('height', 'slope'), self.compute_plane(objective, at, state | update), strict=True))
        none = torch.zeros(len(at), dtype=torch.bool, device=at.device)
        return update | {'at': at, 'fooled': none, 'found': state['clean'],
                        'loss': torch.full_like(update['height'], -math.inf)}  # negative distance of 'found'

    def update_state(self, objective: Objective, state: State, age: Tensor, *, last: bool) -> State:
        at, clean = self._step_across(state), state['clean']
        over = objective.evaluate(at, state['row'], goals=state.get('goal'), gradient=False).fooled
        nearness = -self.threat.get_size(at - clean)
        nearer = over & (nearness > state['loss'])
        update = {'loss': torch.where(nearer, nearness, state['loss']), 'found': choose(nearer, at, state['found'])}
        update['fooled'] = -update['loss'] <= self.threat.epsilon
        update['at'] = choose(over, clean + self.back * (at - clean), at)
        if not last:
            # fooled rows can skip their plane; on a GPU the selection of rows would synchronize
            skips = at.device.type == 'cpu' and not self.run_to_end
            todo = (~update['fooled']).nonzero().flatten() if skips else slice(None)
            update |= {key: state[key].clone() for key in ('height', 'slope')}
            chosen = {key: value[todo] for key, value in state.items()}
            if len(chosen['row']):
                plane = self.compute_plane(objective, update['at'][todo], chosen)
                update['height'][todo], update['slope'][todo] = plane
        return update

    def compute_plane(self, objective: Objective, at: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """Linearize the boundary to another class at `at`. Returns height (n,) and normal (n, 3, H, W)."""
        return _select_nearest(cast(ClassifierObjective, objective).iterate_rivals(at, state['row']), self.threat.norm)

    def _draw_start(self, state: State, rng: 'Rng') -> Tensor:
        """Return the clean image or, in a restart, a random one at distance epsilon / 2."""
        clean, again = state['clean'], state['variant'] % self.restarts > 0
        if self.restarts == 1:
            return clean
        draw = 2 * rng.uniform(clean.shape) - 1 if self.threat.norm == 'Linf' else rng.normal(clean.shape)
        away = draw * (self.threat.epsilon / 2 / self.threat.get_size(draw).clamp_min(TINY))[:, None, None, None]
        return choose(again, (clean + away).clamp(0, 1), clean)

    def _step_across(self, state: State) -> Tensor:
        """Step beyond the plane: a weighted mean of the projections of the current and of the clean image."""
        at, clean = state['at'].flatten(1), state['clean'].flatten(1)
        normal = state['slope'].flatten(1)
        clean_height = state['height'] + ((clean - at) * normal).sum(1)
        here = project_to_plane(at, normal, state['height'], self.threat.norm)
        there = project_to_plane(clean, normal, clean_height, self.threat.norm)
        short, long = (self.threat.get_size(way).clamp_min(SHORTEST) for way in (here, there))
        weight = (short / (short + long)).clamp_max(self.nearer)[:, None]
        moved = torch.lerp(at + self.beyond * here, clean + self.beyond * there, weight)
        return moved.clamp(0, 1).view_as(state['at'])


@ATTACKS.register('fab_t', source='Croce & Hein 2020: targeted, in fra31/auto-attack')
@dataclass(frozen=True, kw_only=True)
class TargetedFAB(FAB):
    """Targeted FAB: one search per target class, the most likely wrong classes of the clean image.

    targets: number of target classes, at most all other classes.
    """

    losses: ClassVar[tuple[str, ...]] = ('margin_t',)

    loss: str = 'margin_t'
    targets: int = 9

    def count_searches(self, objective: Objective) -> int:
        return self.restarts * count_targets(objective, self.targets)

    def init_goals(self, objective: Objective, state: State) -> State:
        return {'goal': select_goals(objective, state, self.restarts)}

    def compute_plane(self, objective: Objective, at: Tensor, state: State) -> tuple[Tensor, Tensor]:
        result = objective.evaluate(at, state['row'], goals=state['goal'])
        return result.loss, result.get_gradient()


def _select_nearest(planes: Iterable[tuple[Tensor, Tensor]], norm: str) -> tuple[Tensor, Tensor]:
    """Select the nearest of the planes (height, normal) for each row."""
    def compute_distance(high: Tensor, slope: Tensor) -> Tensor:
        return high.abs() / (TINY + torch.linalg.vector_norm(slope.flatten(1), ord=DUAL[norm], dim=1))

    others = iter(planes)  # each costs a backward pass and is not kept
    first = next(others)
    (height, normal), distance = first, compute_distance(*first)
    for high, slope in others:
        far = compute_distance(high, slope)
        nearer = far < distance
        height, normal = torch.where(nearer, high, height), choose(nearer, slope, normal)
        distance = torch.minimum(far, distance)
    return height, normal
