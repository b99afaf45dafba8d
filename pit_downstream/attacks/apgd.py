"""Auto-PGD: gradient ascent with automatic step size (Croce & Hein 2020, arXiv 2003.01690; L1: 2021, arXiv 2103.01208).

Follows fra31/auto-attack a392200. Oddities of that code that change results are kept and marked.
"""

from dataclasses import dataclass
from functools import cached_property, reduce
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.attacks.losses import warn_once
from pit_downstream.attacks.objective import ClassifierObjective, LossEvaluation, Objective
from pit_downstream.attacks.step_schedule import HalvingSchedule, StepSchedule, SparseSchedule
from pit_downstream.attacks.search_engine import Search, State
from pit_downstream.attacks.threat_model import choose

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng


@ATTACKS.register('apgd', source='Croce & Hein 2020, arXiv 2003.01690')
@dataclass(frozen=True, kw_only=True)
class APGD(Search):
    """Auto-PGD attack.

    loss: 'ce', 'dlr' or 'margin'. restarts: searches per image, each from a different random start. rho: share of the
    steps between two checkpoints that must increase the loss; otherwise the step size is halved. eot: forward passes
    over which the gradient is averaged, for stochastic models. With eot > 1 no row stops early, because one fooled draw
    is not enough. Under L1 the radius shrinks in three phases: 3, 2 and 1 times epsilon.
    """

    steps: int = 100
    restarts: int = 1
    rho: float = 0.75
    eot: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.restarts < 1 or self.eot < 1:
            raise InputError(f'restarts and eot are 1 or more, got {self.restarts} and {self.eot}')

    def count_searches(self, objective: Objective) -> int:
        return self.restarts

    @property
    def num_steps(self) -> int:
        return self.schedule.num_steps

    @cached_property
    def schedule(self) -> StepSchedule:
        return (SparseSchedule if self.threat.norm == 'L1' else HalvingSchedule)(self.threat, self.steps, self.rho)

    def init_goals(self, objective: Objective, state: State) -> State:
        """Return the extra state of new rows in a targeted search: {'goal': (n,)}."""
        return {}

    def init_state(self, objective: Objective, state: State, rng: 'Rng') -> State:
        update = self.init_goals(objective, state)
        at = self.schedule.draw_start(state['clean'], rng)
        result = self._evaluate(objective, at, state | update, gradient=True)
        update |= {'at': at, 'old': at, 'slope': result.get_gradient(), 'best': at, 'best_slope': result.get_gradient(),
                  'loss': result.loss, 'struck': torch.zeros_like(result.fooled), 'found': at}
        update |= self.schedule.init_state(state['clean'], at, result.loss)
        return update | self._select_result(update, result, torch.zeros(len(at), dtype=torch.long))

    def update_state(self, objective: Objective, state: State, age: Tensor, *, last: bool) -> State:
        at = self.schedule.step(state, age)
        result = self._evaluate(objective, at, state, gradient=not last)
        slope = state['slope'] if result.gradient is None else result.gradient
        better = (result.loss > state['loss']) | self.schedule.starts_phase(age, at.device)
        update = {'old': state['at'], 'at': at, 'slope': slope, 'loss': torch.where(better, result.loss, state['loss']),
                 'best': choose(better, at, state['best']), 'best_slope': choose(better, slope, state['best_slope'])}
        update |= self._select_result(state | update, result, age + 1)
        return update | self.schedule.update_step_size(state | update, result.loss, age)

    def _evaluate(self, objective: Objective, at: Tensor, state: State, *, gradient: bool) -> LossEvaluation:
        """Evaluate the objective. With several passes, return the loss and verdict of the last (as in the original)."""
        passes = [objective.evaluate(at, state['row'], goals=state.get('goal'), gradient=gradient)
                  for _ in range(self.eot)]
        if self.eot == 1 or not gradient:
            return passes[-1]
        mean = reduce(torch.add, (one.get_gradient() for one in passes)) / self.eot
        return LossEvaluation(passes[-1].loss, passes[-1].fooled, mean, passes[-1].logits)

    def _select_result(self, state: State, result: LossEvaluation, num_steps: Tensor) -> State:
        """Select the last fooling image, else the best. Larger radii under L1 do not count."""
        if self.run_to_end:
            return {'fooled': result.fooled, 'found': state['best']}
        strikes = result.fooled & self.schedule.counts_as_success(num_steps, result.fooled.device)
        if self.eot == 1:
            return {'fooled': strikes, 'found': choose(strikes, state['at'], state['best'])}
        struck = state['struck'] | strikes
        found = choose(strikes, state['at'], choose(state['struck'], state['found'], state['best']))
        return {'struck': struck, 'found': found, 'fooled': struck & (num_steps == self.num_steps).to(struck.device)}


@ATTACKS.register('apgd_t', source='Croce & Hein 2020, arXiv 2003.01690: targeted DLR')
@dataclass(frozen=True, kw_only=True)
class TargetedAPGD(APGD):
    """Targeted Auto-PGD: one search per target class, the most likely wrong classes of the clean image.

    loss: 'dlr_t', 'ce_t' or 'margin_t'. targets: number of target classes, at most all other classes.
    """

    needs_logits: ClassVar[bool] = True
    losses: ClassVar[tuple[str, ...]] = ('dlr_t', 'ce_t', 'margin_t')

    loss: str = 'dlr_t'
    targets: int = 9

    def count_searches(self, objective: Objective) -> int:
        return self.restarts * count_targets(objective, self.targets)

    def init_goals(self, objective: Objective, state: State) -> State:
        return {'goal': select_goals(objective, state, self.restarts)}


def count_targets(objective: Objective, wanted: int) -> int:
    """Return the number of target classes: `wanted`, or all other classes if there are fewer."""
    classes = cast(ClassifierObjective, objective).num_classes
    if classes - 1 < wanted:
        warn_once(f'{wanted} target classes were requested, but the model has {classes} classes: {classes - 1} targets '
                  'are used')
    return min(wanted, classes - 1)


def select_goals(objective: Objective, state: State, restarts: int) -> Tensor:
    """Return the target class of each row (n,), most likely first. All restarts of a target precede the next target."""
    rank = torch.div(state['variant'], restarts, rounding_mode='floor')
    return cast(ClassifierObjective, objective).rank_rivals(state['row']).gather(1, rank[:, None]).squeeze(1)
