"""Square attack: random search with squares, without gradients (Andriushchenko et al. 2020, arXiv 1912.00049).

After fra31/auto-attack a392200, square.py; here every image draws its own squares.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.registry import ATTACKS
from .objective import Examined, Objective
from .search import Search, State
from .windows import Windows

if TYPE_CHECKING:
    from ..core.contracts import Rng

HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries, of 10,000: section 5 of the paper


@ATTACKS.register('square', source='Andriushchenko et al. 2020, arXiv 1912.00049', quick={'steps': 20})
@dataclass(frozen=True, kw_only=True)
class Square(Search):
    """steps: queries after the first. p_init: share of the pixels that the first squares cover. restarts: per image.

    rescaled: stretch the times at which squares shrink from 10,000 queries to `steps`; AutoAttack does not.
    """

    steps: int = 5000
    loss: str = 'margin'
    p_init: float = 0.8
    restarts: int = 1
    rescaled: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.p_init <= 1 or self.restarts < 1:
            raise ValueError(f'p_init is a share in (0, 1] and restarts 1 or more, got {self.p_init} and {self.restarts}')

    @property
    def variants(self) -> int:
        return self.restarts

    def begin(self, objective: Objective, state: State, rng: 'Rng') -> State:
        clean = state['clean']
        rows = len(clean)
        linf = self.threat.norm == 'Linf'
        at = self._stripes(clean, rng) if linf else self._windows.start(clean, rng)
        places = rng.uniform((rows, self.steps, 2 if linf else 4))
        coins = rng.integers(0, 2 ** (clean.shape[1] + 1), (rows, self.steps)).to(torch.uint8)
        seen = objective.examine(at, state['row'], gradient=False)
        return {'places': places, 'coins': coins, 'found': at, 'loss': seen.loss, 'fooled': seen.fooled}

    def advance(self, objective: Objective, state: State, age: Tensor, *, last: bool) -> State:
        clean, found = state['clean'], state['found']
        rows = torch.arange(len(age), device=clean.device)
        sizes, now = self._sizes(clean)[age], age.to(clean.device)
        places, coins = state['places'][rows, now], state['coins'][rows, now]
        signs = (coins[:, None] >> torch.arange(clean.shape[1], device=clean.device) & 1).to(clean) * 2 - 1
        if self.threat.norm == 'Linf':
            new = self._square(clean, found, sizes, places, signs)
        else:
            turned = (coins >> clean.shape[1] & 1).bool()
            new = self._windows.propose(clean, found, sizes, places, signs, turned)
        seen = self._ask(objective, state, new)
        better = (seen.loss > state['loss']) | seen.fooled
        return {'found': torch.where(better[:, None, None, None], new, found), 'fooled': seen.fooled,
                'loss': torch.where(better, seen.loss, state['loss'])}

    def _ask(self, objective: Objective, state: State, new: Tensor) -> Examined:
        """A proposal that changes nothing needs no query: one in eight or more, late in a search under Linf.

        To find them, a GPU would have to be waited for.
        """
        todo = (new != state['found']).flatten(1).any(1) if new.device.type == 'cpu' else None
        if todo is None or todo.all():
            return objective.examine(new, state['row'], gradient=False)
        loss, fooled = state['loss'].clone(), state['fooled'].clone()
        if todo.any():
            seen = objective.examine(new[todo], state['row'][todo], gradient=False)
            loss[todo], fooled[todo] = seen.loss, seen.fooled
        return Examined(loss, fooled)

    def _stripes(self, clean: Tensor, rng: 'Rng') -> Tensor:
        """Every column of every channel by epsilon up or down."""
        rows, channels, _, width = clean.shape
        signs = rng.integers(0, 2, (rows, channels, 1, width)).to(clean) * 2 - 1
        return (clean + self.threat.epsilon * signs).clamp(0, 1)

    def _square(self, clean: Tensor, found: Tensor, sizes: Tensor, places: Tensor, signs: Tensor) -> Tensor:
        """What is found, with a square in which every channel is epsilon above or below the clean image."""
        sides = torch.tensor(clean.shape[-2:], device=clean.device)
        sizes = sizes.to(clean.device)[:, None]
        first = (places * (sides - sizes)).long()  # the last place is never drawn: an oddity of the original
        down, right = (torch.arange(side, device=clean.device) - first[:, axis:axis + 1]
                       for axis, side in enumerate(clean.shape[-2:]))
        inside = ((down >= 0) & (down < sizes))[:, None, :, None] & ((right >= 0) & (right < sizes))[:, None, None, :]
        edge = (clean + self.threat.epsilon * signs[:, :, None, None]).clamp(0, 1)
        return torch.where(inside, edge, found)

    @cached_property
    def _windows(self) -> Windows:
        return Windows(self.threat)

    def _sizes(self, clean: Tensor) -> Tensor:
        """(steps,) sides of the squares in pixels."""
        pixels, side = clean[0, 0].numel(), min(clean.shape[-2:])
        least = 1 if self.threat.norm == 'Linf' else 3
        sizes = (self._shares * pixels).sqrt().round().clamp_min(least).long()
        if least == 3:
            sizes = sizes + (sizes % 2 == 0)  # windows have a middle
        return sizes.clamp_max(side)

    @cached_property
    def _shares(self) -> Tensor:
        """(steps,) of the pixels that a square covers."""
        query = torch.arange(self.steps, dtype=torch.float64)
        if self.rescaled:
            query = (query / self.steps * 10000).floor()
        return self.p_init / 2.0 ** torch.searchsorted(torch.tensor(HALVED_AFTER, dtype=torch.float64), query)
