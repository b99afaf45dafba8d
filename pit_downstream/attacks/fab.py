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
from pit_downstream.attacks.search_engine import Search
from pit_downstream.attacks.search_state import ActiveSamples, SearchState
from pit_downstream.attacks.threat_model import choose

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng

DUAL = {'Linf': 1, 'L2': 2, 'L1': math.inf}  # norm of the plane's normal in the distance formula
SHORTEST = 1e-8  # lower bound of a distance when two are weighted


@dataclass(kw_only=True)
class FABState(SearchState):
    """State of FAB. loss: negative distance of the result, -inf without one.

    position: (n, 3, H, W), current image. height (n,), normal (n, 3, H, W): plane of the boundary near the position.
    goals: target classes (n,) of a targeted search.
    """

    position: Tensor
    height: Tensor
    normal: Tensor
    goals: Tensor | None


@ATTACKS.register('fab', source='Croce & Hein 2020, arXiv 1907.02044')
@dataclass(frozen=True, kw_only=True)
class FAB(Search[FABState]):
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

    def init_goals(self, objective: Objective, samples: ActiveSamples) -> Tensor | None:
        """Return the target class of each row (n,), None in an untargeted search."""
        return None

    def init_state(self, objective: Objective, samples: ActiveSamples, rng: 'Rng') -> FABState:
        goals = self.init_goals(objective, samples)
        position = self._draw_start(samples, rng)
        height, normal = self.compute_plane(objective, position, samples.row, goals)
        return FABState(samples=samples, adversarial=samples.clean, fooled=torch.zeros_like(height, dtype=torch.bool),
                        loss=torch.full_like(height, -math.inf), position=position, height=height, normal=normal,
                        goals=goals)

    def update_state(self, objective: Objective, state: FABState, age: Tensor, *, last: bool) -> None:
        images, clean = self._step_across(state), state.clean
        fooled = objective.evaluate(images, state.row, goals=state.goals, gradient=False).fooled
        nearness = -self.threat.get_size(images - clean)
        nearer = fooled & (nearness > state.loss)
        state.loss = torch.where(nearer, nearness, state.loss)
        state.adversarial = choose(nearer, images, state.adversarial)
        state.fooled = -state.loss <= self.threat.epsilon
        state.position = choose(fooled, clean + self.back * (images - clean), images)
        if not last:
            self._update_planes(objective, state)

    def _update_planes(self, objective: Objective, state: FABState) -> None:
        """Linearize the boundary at the new position, on a CPU only of rows that are not fooled.

        On a GPU the selection of rows would synchronize.
        """
        if state.position.device.type != 'cpu' or self.run_to_end:
            state.height, state.normal = self.compute_plane(objective, state.position, state.row, state.goals)
            return
        todo = (~state.fooled).nonzero().flatten()
        if len(todo):
            goals = None if state.goals is None else state.goals[todo]
            height, normal = self.compute_plane(objective, state.position[todo], state.row[todo], goals)
            state.height = state.height.index_copy(0, todo, height)
            state.normal = state.normal.index_copy(0, todo, normal)

    def compute_plane(self, objective: Objective, images: Tensor, rows: Tensor, goals: Tensor | None
                      ) -> tuple[Tensor, Tensor]:
        """Linearize the boundary to another class at the images. Return height (n,) and normal (n, 3, H, W)."""
        return _select_nearest(cast(ClassifierObjective, objective).iterate_rivals(images, rows), self.threat.norm)

    def _draw_start(self, samples: ActiveSamples, rng: 'Rng') -> Tensor:
        """Return the clean image or, in a restart, a random one at distance epsilon / 2."""
        clean, is_restart = samples.clean, samples.variant % self.restarts > 0
        if self.restarts == 1:
            return clean
        draw = 2 * rng.uniform(clean.shape) - 1 if self.threat.norm == 'Linf' else rng.normal(clean.shape)
        delta = draw * (self.threat.epsilon / 2 / self.threat.get_size(draw).clamp_min(TINY))[:, None, None, None]
        return choose(is_restart, (clean + delta).clamp(0, 1), clean)

    def _step_across(self, state: FABState) -> Tensor:
        """Step beyond the plane: a weighted mean of the projections of the current and of the clean image."""
        position, clean, normal = state.position.flatten(1), state.clean.flatten(1), state.normal.flatten(1)
        clean_height = state.height + ((clean - position) * normal).sum(1)
        delta = project_to_plane(position, normal, state.height, self.threat.norm)
        clean_delta = project_to_plane(clean, normal, clean_height, self.threat.norm)
        short, long = (self.threat.get_size(values).clamp_min(SHORTEST) for values in (delta, clean_delta))
        weight = (short / (short + long)).clamp_max(self.nearer)[:, None]
        moved = torch.lerp(position + self.beyond * delta, clean + self.beyond * clean_delta, weight)
        return moved.clamp(0, 1).view_as(state.position)


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

    def init_goals(self, objective: Objective, samples: ActiveSamples) -> Tensor:
        return select_goals(objective, samples, self.restarts)

    def compute_plane(self, objective: Objective, images: Tensor, rows: Tensor, goals: Tensor | None
                      ) -> tuple[Tensor, Tensor]:
        result = objective.evaluate(images, rows, goals=goals)
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
