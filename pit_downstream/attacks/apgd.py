"""Auto-PGD: gradient ascent that sets its own steps (Croce & Hein 2020, arXiv 2003.01690; L1: 2021, arXiv 2103.01208).

After fra31/auto-attack a392200, whose oddities that change numbers are kept and marked as such.
"""

from dataclasses import dataclass
from functools import cached_property, reduce
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor

from pit_downstream.core.registry import ATTACKS
from pit_downstream.attacks.losses import say
from pit_downstream.attacks.objective import ClassifierObjective, LossEvaluation, Objective
from pit_downstream.attacks.step_schedule import HalvingSchedule, StepSchedule, SparseSchedule
from pit_downstream.attacks.search_engine import Search, State
from pit_downstream.attacks.threat_model import choose

if TYPE_CHECKING:
    from pit_downstream.core.contracts import Rng


@ATTACKS.register('apgd', source='Croce & Hein 2020, arXiv 2003.01690', quick={'steps': 3})
@dataclass(frozen=True, kw_only=True)
class APGD(Search):
    """loss: 'ce', 'dlr' or 'margin'. restarts: searches per image, each from another random start.

    rho: share of the steps between two checkpoints that have to gain, or the step is halved. eot: passes over which a
    gradient is averaged, for models with chance in them; then no row leaves early, for one lucky draw fools nobody.
    Under L1 the radius shrinks in three phases: 3, 2 and 1 times epsilon.
    """

    steps: int = 100
    restarts: int = 1
    rho: float = 0.75
    eot: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.restarts < 1 or self.eot < 1:
            raise ValueError(f'restarts and eot are 1 or more, got {self.restarts} and {self.eot}')

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
        """What a targeted search adds to fresh rows: {'goal': (n,)}."""
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
        """With several passes the loss and the verdict are those of the last (as in the original)."""
        passes = [objective.examine(at, state['row'], goals=state.get('goal'), gradient=gradient)
                  for _ in range(self.eot)]
        if self.eot == 1 or not gradient:
            return passes[-1]
        mean = reduce(torch.add, (one.slope for one in passes)) / self.eot
        return LossEvaluation(passes[-1].loss, passes[-1].fooled, mean, passes[-1].logits)

    def _verdict(self, state: State, seen: LossEvaluation, moves: Tensor) -> State:
        """The found image is the last that struck, else the best; larger radii under L1 do not count."""
        if self.run_to_end:
            return {'fooled': seen.fooled, 'found': state['best']}
        strikes = seen.fooled & self.pace.counts(moves, seen.fooled.device)
        if self.eot == 1:
            return {'fooled': strikes, 'found': choose(strikes, state['at'], state['best'])}
        struck = state['struck'] | strikes
        found = choose(strikes, state['at'], choose(state['struck'], state['found'], state['best']))
        return {'struck': struck, 'found': found, 'fooled': struck & (moves == self.moves).to(struck.device)}


@ATTACKS.register('apgd_t', source='Croce & Hein 2020, arXiv 2003.01690: targeted DLR',
                  quick={'steps': 3, 'targets': 2})
@dataclass(frozen=True, kw_only=True)
class TargetedAPGD(APGD):
    """A search per target: the classes that the clean image is likeliest to be taken for.

    loss: 'dlr_t', 'ce_t' or 'margin_t'. targets: how many, all other classes where there are fewer.
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
    """How many target classes a classifier has, at most as many as wanted."""
    classes = cast(ClassifierObjective, objective).classes
    if classes - 1 < wanted:
        say(f'{wanted} target classes were wanted, the model has {classes} classes: {classes - 1} targets are tried')
    return min(wanted, classes - 1)


def goals_of(objective: Objective, state: State, restarts: int) -> Tensor:
    """The target class of each row (n,): restarts of one target before the next, the likeliest first."""
    rank = torch.div(state['variant'], restarts, rounding_mode='floor')
    return cast(ClassifierObjective, objective).rivals(state['row']).gather(1, rank[:, None]).squeeze(1)
