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
from pit_downstream.attacks.losses import say
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

    @property
    def variants(self) -> int:
        return self.restarts

    @property
    def moves(self) -> int:
        return self.pace.moves

    @cached_property
    def pace(self) -> StepSchedule:
        return (SparseSchedule if self.threat.norm == 'L1' else HalvingSchedule)(self.threat, self.steps, self.rho)

    def goals(self, objective: Objective, state: State) -> State:
        """Return the extra state of new rows in a targeted search: {'goal': (n,)}."""
        return {}

    def begin(self, objective: Objective, state: State, rng: 'Rng') -> State:
        fresh = self.goals(objective, state)
        at = self.pace.start(state['clean'], rng)
        seen = self._look(objective, at, state | fresh, gradient=True)
        fresh |= {'at': at, 'old': at, 'slope': seen.slope, 'best': at, 'best_slope': seen.slope,
                  'loss': seen.loss, 'struck': torch.zeros_like(seen.fooled), 'found': at}
        fresh |= self.pace.begin(state['clean'], at, seen.loss)
        return fresh | self._verdict(fresh, seen, torch.zeros(len(at), dtype=torch.long))

    def advance(self, objective: Objective, state: State, age: Tensor, *, last: bool) -> State:
        at = self.pace.step(state, age)
        seen = self._look(objective, at, state, gradient=not last)
        slope = state['slope'] if seen.gradient is None else seen.gradient
        better = (seen.loss > state['loss']) | self.pace.opens(age, at.device)
        fresh = {'old': state['at'], 'at': at, 'slope': slope, 'loss': torch.where(better, seen.loss, state['loss']),
                 'best': choose(better, at, state['best']), 'best_slope': choose(better, slope, state['best_slope'])}
        fresh |= self._verdict(state | fresh, seen, age + 1)
        return fresh | self.pace.check(state | fresh, seen.loss, age)

    def _look(self, objective: Objective, at: Tensor, state: State, *, gradient: bool) -> LossEvaluation:
        """Evaluate the objective. With several passes, return the loss and verdict of the last (as in the original)."""
        passes = [objective.examine(at, state['row'], goals=state.get('goal'), gradient=gradient)
                  for _ in range(self.eot)]
        if self.eot == 1 or not gradient:
            return passes[-1]
        mean = reduce(torch.add, (one.slope for one in passes)) / self.eot
        return LossEvaluation(passes[-1].loss, passes[-1].fooled, mean, passes[-1].logits)

    def _verdict(self, state: State, seen: LossEvaluation, moves: Tensor) -> State:
        """Select the last fooling image, else the best. Larger radii under L1 do not count."""
        if self.run_to_end:
            return {'fooled': seen.fooled, 'found': state['best']}
        strikes = seen.fooled & self.pace.counts(moves, seen.fooled.device)
        if self.eot == 1:
            return {'fooled': strikes, 'found': choose(strikes, state['at'], state['best'])}
        struck = state['struck'] | strikes
        found = choose(strikes, state['at'], choose(state['struck'], state['found'], state['best']))
        return {'struck': struck, 'found': found, 'fooled': struck & (moves == self.moves).to(struck.device)}


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

    @property
    def variants(self) -> int:
        return self.restarts * self.targets

    def jobs(self, objective: Objective) -> int:
        return self.restarts * targets_of(objective, self.targets)

    def goals(self, objective: Objective, state: State) -> State:
        return {'goal': goals_of(objective, state, self.restarts)}


def targets_of(objective: Objective, wanted: int) -> int:
    """Return the number of target classes: `wanted`, or all other classes if there are fewer."""
    classes = cast(ClassifierObjective, objective).classes
    if classes - 1 < wanted:
        say(f'{wanted} target classes were wanted, the model has {classes} classes: {classes - 1} targets are tried')
    return min(wanted, classes - 1)


def goals_of(objective: Objective, state: State, restarts: int) -> Tensor:
    """Return the target class of each row (n,), most likely first. All restarts of a target precede the next target."""
    rank = torch.div(state['variant'], restarts, rounding_mode='floor')
    return cast(ClassifierObjective, objective).rivals(state['row']).gather(1, rank[:, None]).squeeze(1)
