"""Square attack: gradient-free random search with squares (Andriushchenko et al. 2020, arXiv 1912.00049).

Follows fra31/auto-attack a392200, square.py, except that every image draws separate squares.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.attacks.objective import LossEvaluation, Objective
from pit_downstream.attacks.search_engine import Search
from pit_downstream.attacks.search_state import ActiveSamples, SearchState
from pit_downstream.attacks.square_windows import Windows
from pit_downstream.attacks.threat_model import choose

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng

AHEAD, PER_AHEAD = 16, 8  # maximum proposals per row and pass; steps per additional proposal
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries, of 10,000: section 5 of the paper


@dataclass(kw_only=True)
class SquareState(SearchState):
    """State of Square.

    positions: (n, steps, 2 or 4) in [0, 1), origins of the squares of every query. coins: uint8 (n, steps), a random
    bit per channel for the signs, and a last one. query: (n,), the next query.
    """

    positions: Tensor
    coins: Tensor
    query: Tensor


@ATTACKS.register('square', source='Andriushchenko et al. 2020, arXiv 1912.00049')
@dataclass(frozen=True, kw_only=True)
class Square(Search[SquareState]):
    """Square attack. steps: queries after the first. p_init: pixel share of the first squares. restarts: per image.

    rescaled: rescale the schedule of square sizes from 10,000 queries to `steps`, unlike AutoAttack.
    """

    steps: int = 5000
    loss: str = 'margin'
    p_init: float = 0.8
    restarts: int = 1
    rescaled: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.p_init <= 1 or self.restarts < 1:
            raise InputError(f'p_init is a share in (0, 1] and restarts 1 or more, got {self.p_init} '
                             f'and {self.restarts}')

    def count_searches(self, objective: Objective) -> int:
        return self.restarts

    def init_state(self, objective: Objective, samples: ActiveSamples, rng: 'Rng') -> SquareState:
        clean = samples.clean
        linf = self.threat.norm == 'Linf'
        images = self._draw_stripes(clean, rng) if linf else self._windows.draw_start(clean, rng)
        positions = rng.uniform((len(clean), self.steps, 2 if linf else 4))
        coins = rng.integers(0, 2 ** (clean.shape[1] + 1), (len(clean), self.steps)).to(torch.uint8)
        result = objective.evaluate(images, samples.row, gradient=False)
        return SquareState(samples=samples, adversarial=images, fooled=result.fooled, loss=result.loss,
                           positions=positions, coins=coins, query=torch.zeros_like(samples.row))

    def update_state(self, objective: Objective, state: SquareState, age: Tensor, *, last: bool) -> None:
        """Evaluate each row's next proposals, as many as fit in the batch, up to the first accepted one."""
        ahead = self._count_proposals(objective, age)
        rows = torch.arange(len(age), device=state.row.device)
        repeated = rows.repeat_interleave(ahead)
        spread = repeated if ahead > 1 else slice(None)
        row, clean, best, loss = (values[spread] for values in (state.row, state.clean, state.adversarial, state.loss))
        query = state.query[spread] + torch.arange(ahead, device=rows.device).repeat(len(rows))
        drawn = query.clamp_max(self.steps - 1)
        new = self._make_proposals(clean, best, drawn, state.positions[repeated, drawn], state.coins[repeated, drawn])
        result = self._evaluate_proposals(objective, new, best, row, loss)
        better = (((result.loss > loss) | result.fooled) & (query < self.steps)).view(-1, ahead)
        accepted, first = better.any(1), better.int().argmax(1)
        index = rows * ahead + first
        state.adversarial = choose(accepted, new[index], state.adversarial)
        state.loss = torch.where(accepted, result.loss[index], state.loss)
        state.fooled = accepted & result.fooled[index]
        state.query = state.query + torch.where(accepted, first + 1, ahead)

    def is_done(self, state: SquareState, age: Tensor) -> Tensor:
        return (state.query >= self.steps).cpu()

    def _count_proposals(self, objective: Objective, age: Tensor) -> int:
        """Return the number of proposals per row and pass. It does not affect the result.

        Proposals after an accepted one are wasted. The number starts small, because early proposals are often accepted.
        """
        capacity = getattr(objective, 'width', len(age)) // len(age)
        return max(1, min(capacity, AHEAD, 1 + int(age.min()) // PER_AHEAD))

    def _make_proposals(self, clean: Tensor, best: Tensor, query: Tensor, positions: Tensor, coins: Tensor) -> Tensor:
        """Return new images that differ from `best` in one square. query: (n,), selects the size of the square."""
        channels = clean.shape[1]
        signs = (coins[:, None] >> torch.arange(channels, device=clean.device) & 1).to(clean) * 2 - 1
        sizes = self._compute_sizes(clean)[query]
        if self.threat.norm == 'Linf':
            return self._paste_squares(clean, best, sizes, positions, signs)
        return self._windows.move_windows(clean, best, sizes, positions, signs, (coins >> channels & 1).bool())

    def _evaluate_proposals(self, objective: Objective, new: Tensor, best: Tensor, rows: Tensor, loss: Tensor
                            ) -> LossEvaluation:
        """Query the model, except for proposals that change nothing: one in eight or more, late in a search under Linf.

        On a GPU all proposals are queried, because a selection would synchronize. loss: (n,), of `best`.
        """
        todo = (new != best).flatten(1).any(1) if new.device.type == 'cpu' else None
        if todo is None or todo.all():
            return objective.evaluate(new, rows, gradient=False)
        loss, fooled = loss.clone(), torch.zeros_like(todo)
        if todo.any():
            result = objective.evaluate(new[todo], rows[todo], gradient=False)
            loss[todo], fooled[todo] = result.loss, result.fooled
        return LossEvaluation(loss, fooled)

    def _draw_stripes(self, clean: Tensor, rng: 'Rng') -> Tensor:
        """Change every column of every channel by +epsilon or -epsilon."""
        rows, channels, _, width = clean.shape
        signs = rng.integers(0, 2, (rows, channels, 1, width)).to(clean) * 2 - 1
        return (clean + self.threat.epsilon * signs).clamp(0, 1)

    def _paste_squares(self, clean: Tensor, best: Tensor, sizes: Tensor, positions: Tensor, signs: Tensor) -> Tensor:
        """Replace a square of `best` by the clean image with epsilon added to or subtracted from each channel."""
        sides = torch.tensor(clean.shape[-2:], device=clean.device)
        sizes = sizes[:, None]
        first = (positions * (sides - sizes)).long()  # the last position is never drawn: an oddity of the original
        down, right = (torch.arange(side, device=clean.device) - first[:, axis:axis + 1]
                       for axis, side in enumerate(clean.shape[-2:]))
        inside = ((down >= 0) & (down < sizes))[:, None, :, None] & ((right >= 0) & (right < sizes))[:, None, None, :]
        edge = (clean + self.threat.epsilon * signs[:, :, None, None]).clamp(0, 1)
        return torch.where(inside, edge, best)

    @cached_property
    def _windows(self) -> Windows:
        return Windows(self.threat)

    def _compute_sizes(self, clean: Tensor) -> Tensor:
        """Return the side of the squares in pixels, (steps,)."""
        pixels, side = clean[0, 0].numel(), min(clean.shape[-2:])
        least = 1 if self.threat.norm == 'Linf' else 3
        sizes = (self._shares * pixels).sqrt().round().clamp_min(least).long()
        if least == 3:
            sizes = sizes + (sizes % 2 == 0)  # windows have a center
        return sizes.clamp_max(side).to(clean.device)

    @cached_property
    def _shares(self) -> Tensor:
        """Share of the pixels in a square, (steps,)."""
        query = torch.arange(self.steps, dtype=torch.float64)
        if self.rescaled:
            query = (query / self.steps * 10000).floor()
        return self.p_init / 2.0 ** torch.searchsorted(torch.tensor(HALVED_AFTER, dtype=torch.float64), query)
