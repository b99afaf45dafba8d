"""Auto-PGD: gradient ascent with automatic step size (Croce & Hein 2020, arXiv 2003.01690; L1: 2021, arXiv 2103.01208).

Follows fra31/auto-attack a392200. Oddities of that code that change results are kept and marked.
"""

from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.attacks.losses import warn_once
from pit_downstream.attacks.objective import ClassifierObjective, LossEvaluation, Objective
from pit_downstream.attacks.step_schedule import APGDState, HalvingSchedule, SparseSchedule, StepSchedule
from pit_downstream.attacks.search_engine import Search
from pit_downstream.attacks.search_state import ActiveSamples
from pit_downstream.attacks.threat_model import choose

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng


@ATTACKS.register('apgd', source='Croce & Hein 2020, arXiv 2003.01690')
@dataclass(frozen=True, kw_only=True)
class APGD(Search[APGDState[Any]]):
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
    def schedule(self) -> StepSchedule[Any]:
        return (SparseSchedule if self.threat.norm == 'L1' else HalvingSchedule)(self.threat, self.steps, self.rho)

    def init_goals(self, objective: Objective, samples: ActiveSamples) -> Tensor | None:
        """Return the target class of each row (n,), None in an untargeted search."""
        return None

    def init_state(self, objective: Objective, samples: ActiveSamples, rng: 'Rng') -> APGDState[Any]:
        goals = self.init_goals(objective, samples)
        images = self.schedule.draw_start(samples.clean, rng)
        result = self._evaluate(objective, images, samples.row, goals, gradient=True)
        gradient = result.get_gradient()
        state: APGDState[Any] = APGDState(
            samples=samples, adversarial=images, fooled=result.fooled, loss=result.loss, position=images,
            previous=images, gradient=gradient, best=images, best_gradient=gradient,
            has_fooled=torch.zeros_like(result.fooled), goals=goals,
            schedule=self.schedule.init_state(samples.clean, images, result.loss))
        self._select_result(state, result, torch.zeros(len(images), dtype=torch.long))
        return state

    def update_state(self, objective: Objective, state: APGDState[Any], age: Tensor, *, last: bool) -> None:
        images = self.schedule.step(state, age)
        result = self._evaluate(objective, images, state.row, state.goals, gradient=not last)
        state.previous, state.position = state.position, images
        if result.gradient is not None:
            state.gradient = result.gradient
        better = (result.loss > state.loss) | self.schedule.starts_phase(age, images.device)
        state.loss = torch.where(better, result.loss, state.loss)
        state.best = choose(better, images, state.best)
        state.best_gradient = choose(better, state.gradient, state.best_gradient)
        self._select_result(state, result, age + 1)
        self.schedule.update_step_size(state, result.loss, age)

    def _evaluate(self, objective: Objective, images: Tensor, rows: Tensor, goals: Tensor | None, *, gradient: bool
                  ) -> LossEvaluation:
        """Evaluate the objective. With several passes, return the loss and verdict of the last (as in the original)."""
        passes = [objective.evaluate(images, rows, goals=goals, gradient=gradient) for _ in range(self.eot)]
        if self.eot == 1 or not gradient:
            return passes[-1]
        mean = reduce(torch.add, (result.get_gradient() for result in passes)) / self.eot
        return replace(passes[-1], gradient=mean)

    def _select_result(self, state: APGDState[Any], result: LossEvaluation, num_steps: Tensor) -> None:
        """Select the last fooling image, else the best. Larger radii under L1 do not count."""
        if self.run_to_end:
            state.fooled, state.adversarial = result.fooled, state.best
            return
        fooled = result.fooled & self.schedule.counts_as_success(num_steps, result.fooled.device)
        if self.eot == 1:
            state.fooled, state.adversarial = fooled, choose(fooled, state.position, state.best)
            return
        previous = choose(state.has_fooled, state.adversarial, state.best)
        state.adversarial = choose(fooled, state.position, previous)
        state.has_fooled = state.has_fooled | fooled
        state.fooled = state.has_fooled & (num_steps == self.num_steps).to(fooled.device)


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

    def init_goals(self, objective: Objective, samples: ActiveSamples) -> Tensor:
        return select_goals(objective, samples, self.restarts)


def count_targets(objective: Objective, wanted: int) -> int:
    """Return the number of target classes: `wanted`, or all other classes if there are fewer."""
    classes = cast(ClassifierObjective, objective).num_classes
    if classes - 1 < wanted:
        warn_once(f'{wanted} target classes were requested, but the model has {classes} classes: {classes - 1} targets '
                  'are used')
    return min(wanted, classes - 1)


def select_goals(objective: Objective, samples: ActiveSamples, restarts: int) -> Tensor:
    """Return the target class of each row (n,), most likely first. All restarts of a target precede the next target."""
    rank = torch.div(samples.variant, restarts, rounding_mode='floor')
    return cast(ClassifierObjective, objective).rank_rivals(samples.row).gather(1, rank[:, None]).squeeze(1)
