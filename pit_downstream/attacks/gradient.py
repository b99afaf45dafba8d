"""Attacks that follow the gradient of a loss with steps of a fixed length."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..core.registry import ATTACKS
from .objective import Objective
from .search import Search, State

if TYPE_CHECKING:
    from ..core.contracts import Rng


@ATTACKS.register('pgd', source='Madry et al. 2018, arXiv 1706.06083')
@dataclass(frozen=True, kw_only=True)
class PGD(Search):
    """Projected gradient ascent. step: length of one, in pixel scale; 2.5 epsilon / steps unless given (Madry et al.).

    start: 'random' within the ball, or 'clean'. restarts: searches per image, each from another random start.
    """

    step: float | None = None
    start: str = 'random'
    restarts: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.start not in ('random', 'clean'):
            raise ValueError(f"start is 'random' or 'clean', got {self.start!r}")
        if self.restarts < 1 or (self.restarts > 1 and self.start == 'clean'):
            raise ValueError(f"restarts is 1 or more, and 1 where start is 'clean', got {self.restarts}")

    @property
    def variants(self) -> int:
        return self.restarts

    @property
    def length(self) -> float:
        return 2.5 * self.threat.epsilon / self.steps if self.step is None else self.step

    def begin(self, objective: Objective, state: State, rng: 'Rng') -> State:
        images = state['clean']
        if self.start == 'random':
            images = self.threat.within(images, images + self.threat.random(images.shape, rng))
        return self._look(objective, state, images, gradient=True)

    def advance(self, objective: Objective, state: State, age: Tensor, *, last: bool) -> State:
        images = state['found'] + self.length * self.threat.steepest(state['gradient'])
        return self._look(objective, state, self.threat.within(state['clean'], images), gradient=not last)

    def _look(self, objective: Objective, state: State, images: Tensor, *, gradient: bool) -> State:
        seen = objective.examine(images, state['row'], gradient=gradient)
        slope = state['gradient'] if seen.gradient is None else seen.gradient
        return {'found': images, 'fooled': seen.fooled, 'loss': seen.loss, 'gradient': slope}
