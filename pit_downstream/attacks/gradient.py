"""Gradient attacks with a fixed step size."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.attacks.adam import AdamState
from pit_downstream.attacks.objective import Objective
from pit_downstream.attacks.search_engine import Search
from pit_downstream.attacks.search_state import ActiveSamples, GradientState
from pit_downstream.attacks.threat_model import SMALLEST

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng

TRADES_START = 0.001  # standard deviation: yaodongyu/TRADES, trades.py


@dataclass(kw_only=True)
class PGDState(GradientState):
    """State of PGD. goals: of the loss, as in Objective.evaluate. adam, gradient_sum: of the optimizer."""

    goals: Tensor | None = None
    adam: AdamState | None = None
    gradient_sum: Tensor | None = None


@ATTACKS.register('pgd', source='Madry et al. 2018, arXiv 1706.06083')
@dataclass(frozen=True, kw_only=True)
class PGD(Search[PGDState]):
    """Projected gradient ascent. step: step size in pixel scale, by default 2.5 epsilon / steps (Madry et al.).

    start: 'random' within the ball, or 'clean'. restarts: searches per image, each from a different random start.
    optimizer: 'steepest' follows the direction of steepest ascent, the sign of the gradient under Linf. 'adam' averages
    these directions with Adam, as foolbox's LinfAdamPGD does, and under L2 and L1 scales the result to norm 1.
    """

    starts: ClassVar[tuple[str, ...]] = ('random', 'clean')

    step: float | None = None
    start: str = 'random'
    restarts: int = 1
    optimizer: str = 'steepest'

    def __post_init__(self):
        super().__post_init__()
        if self.start not in self.starts:
            raise InputError(f'start is {" or ".join(map(repr, self.starts))}, got {self.start!r}')
        if self.restarts < 1 or (self.restarts > 1 and self.start == 'clean'):
            raise InputError(f"restarts is 1 or more, and 1 where start is 'clean', got {self.restarts}")
        if self.optimizer not in ('steepest', 'adam'):
            raise InputError(f"optimizer is 'steepest' or 'adam', got {self.optimizer!r}")
        if self.step is not None and self.step < 0:
            raise InputError(f'step is 0 or more on the scale of pixels in [0, 1], such as 2/255, got {self.step}')

    def count_searches(self, objective: Objective) -> int:
        return self.restarts

    @property
    def step_size(self) -> float:
        """Step size, in pixel scale."""
        return 2.5 * self.threat.epsilon / self.steps if self.step is None else self.step

    def init_state(self, objective: Objective, samples: ActiveSamples, rng: 'Rng') -> PGDState:
        goals = self._compute_goals(objective, samples)
        images = self._draw_start(samples.clean, rng)
        result = objective.evaluate(images, samples.row, goals=goals)
        state = PGDState(samples=samples, adversarial=images, fooled=result.fooled, loss=result.loss,
                         gradient=result.get_gradient(), goals=goals)
        self._init_optimizer(state)
        return state

    def update_state(self, objective: Objective, state: PGDState, age: Tensor, *, last: bool) -> None:
        direction = self._compute_direction(state, age)
        images = self.threat.project_images(state.clean, state.adversarial + self.step_size * direction)
        state.move(images, objective.evaluate(images, state.row, goals=state.goals, gradient=not last))

    def _compute_goals(self, objective: Objective, samples: ActiveSamples) -> Tensor | None:
        """Return the goals of the loss, as in Objective.evaluate."""
        return None

    def _draw_start(self, clean: Tensor, rng: 'Rng') -> Tensor:
        """Return the first image of each row."""
        if self.start == 'clean':
            return clean
        return self.threat.project_images(clean, clean + self.threat.draw(clean.shape, rng))

    def _init_optimizer(self, state: PGDState) -> None:
        if self.optimizer == 'adam':
            state.adam = AdamState.zeros_like(state.clean)

    def _compute_direction(self, state: PGDState, age: Tensor) -> Tensor:
        """Return the update direction of norm 1, and update the state of the optimizer."""
        steepest = self.threat.get_steepest(state.gradient)
        if state.adam is None:
            return steepest
        direction = state.adam.step(steepest, age)
        if self.threat.norm != 'Linf':
            direction = direction / self.threat.get_size(direction).clamp_min(SMALLEST).view(-1, 1, 1, 1)
        return direction


@ATTACKS.register('bim', source='Kurakin et al. 2017, arXiv 1607.02533')
@dataclass(frozen=True, kw_only=True)
class BIM(PGD):
    """Basic iterative method: PGD from the clean image. step: step size, by default epsilon / steps."""

    steps: int = 10
    start: str = field(default='clean', init=False)
    restarts: int = field(default=1, init=False)
    optimizer: str = field(default='steepest', init=False)

    @property
    def step_size(self) -> float:
        return self.threat.epsilon / self.steps if self.step is None else self.step


@ATTACKS.register('fgsm', source='Goodfellow et al. 2015, arXiv 1412.6572')
@dataclass(frozen=True, kw_only=True)
class FGSM(BIM):
    """Fast gradient (sign) method: one step from the clean image to the surface of the ball."""

    steps: int = field(default=1, init=False)
    step: float | None = field(default=None, init=False)


@ATTACKS.register('mim', source='Dong et al. 2018, arXiv 1710.06081')
@dataclass(frozen=True, kw_only=True)
class MIM(BIM):
    """MI-FGSM: steps along a sum of L1-normalized gradients, decayed by `momentum` at every step."""

    momentum: float = 1.0  # the paper's

    def _init_optimizer(self, state: PGDState) -> None:
        state.gradient_sum = torch.zeros_like(state.clean)

    def _compute_direction(self, state: PGDState, age: Tensor) -> Tensor:
        assert state.gradient_sum is not None
        lengths = state.gradient.abs().sum((1, 2, 3), keepdim=True).clamp_min(SMALLEST)
        state.gradient_sum = self.momentum * state.gradient_sum + state.gradient / lengths
        return self.threat.get_steepest(state.gradient_sum)


@ATTACKS.register('tpgd', source='Zhang et al. 2019 (TRADES), arXiv 1901.08573')
@dataclass(frozen=True, kw_only=True)
class TPGD(PGD):
    """PGD on the KL divergence from the predictions on the clean image.

    It uses no label. It starts next to the clean image, as in TRADES, because the gradient at the image is zero.
    """

    needs_logits: ClassVar[bool] = True
    losses: ClassVar[tuple[str, ...]] = ('kl',)
    starts: ClassVar[tuple[str, ...]] = ('normal',)

    steps: int = 10
    loss: str = field(default='kl', init=False)
    start: str = field(default='normal', init=False)

    def _compute_goals(self, objective: Objective, samples: ActiveSamples) -> Tensor:
        return objective.evaluate(samples.clean, samples.row, gradient=False).get_logits().softmax(1)

    def _draw_start(self, clean: Tensor, rng: 'Rng') -> Tensor:
        return self.threat.project_images(clean, clean + TRADES_START * rng.normal(clean.shape))
