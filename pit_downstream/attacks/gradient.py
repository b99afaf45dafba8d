"""Gradient attacks with a fixed step size."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.attacks.adam import init_adam, step_adam
from pit_downstream.attacks.objective import Objective
from pit_downstream.attacks.search_engine import Search, State
from pit_downstream.attacks.threat_model import SMALLEST

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng

TRADES_START = 0.001  # standard deviation: yaodongyu/TRADES, trades.py


@ATTACKS.register('pgd', source='Madry et al. 2018, arXiv 1706.06083')
@dataclass(frozen=True, kw_only=True)
class PGD(Search):
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

    def init_state(self, objective: Objective, state: State, rng: 'Rng') -> State:
        images = state['clean']
        if self.start == 'random':
            images = self.threat.project_images(images, images + self.threat.draw(images.shape, rng))
        return self._evaluate(objective, state, images, gradient=True) | self._init_optimizer(images)

    def update_state(self, objective: Objective, state: State, age: Tensor, *, last: bool) -> State:
        direction, memory = self._compute_direction(state, age)
        images = self.threat.project_images(state['clean'], state['found'] + self.step_size * direction)
        return self._evaluate(objective, state, images, gradient=not last) | memory

    def _init_optimizer(self, images: Tensor) -> State:
        return init_adam(images) if self.optimizer == 'adam' else {}

    def _compute_direction(self, state: State, age: Tensor) -> tuple[Tensor, State]:
        """Return the update direction of norm 1 and the new optimizer state."""
        steepest = self.threat.get_steepest(state['gradient'])
        if self.optimizer == 'steepest':
            return steepest, {}
        direction, memory = step_adam(state, steepest, age)
        if self.threat.norm != 'Linf':
            direction = direction / self.threat.get_size(direction).clamp_min(SMALLEST).view(-1, 1, 1, 1)
        return direction, memory

    def _evaluate(self, objective: Objective, state: State, images: Tensor, *, gradient: bool) -> State:
        result = objective.evaluate(images, state['row'], goals=state.get('goals'), gradient=gradient)
        slope = state['gradient'] if result.gradient is None else result.gradient
        return {'found': images, 'fooled': result.fooled, 'loss': result.loss, 'gradient': slope}


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

    def _init_optimizer(self, images: Tensor) -> State:
        return {'sum': torch.zeros_like(images)}

    def _compute_direction(self, state: State, age: Tensor) -> tuple[Tensor, State]:
        gradient = state['gradient']
        lengths = gradient.abs().sum((1, 2, 3), keepdim=True).clamp_min(SMALLEST)
        total = self.momentum * state['sum'] + gradient / lengths
        return self.threat.get_steepest(total), {'sum': total}


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

    def init_state(self, objective: Objective, state: State, rng: 'Rng') -> State:
        clean = state['clean']
        goals = objective.evaluate(clean, state['row'], gradient=False).get_logits().softmax(1)
        images = self.threat.project_images(clean, clean + TRADES_START * rng.normal(clean.shape))
        state = state | {'goals': goals}
        return {'goals': goals, **self._evaluate(objective, state, images, gradient=True),
                **self._init_optimizer(images)}
