"""Step schedules of APGD: one class for Linf and L2, one for L1. Rows may have different ages.

Follows fra31/auto-attack a392200, autopgd_base.py.
"""

import math
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from pit_downstream.attacks.projections import project_into_box
from pit_downstream.attacks.threat_model import ThreatModel, choose

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng

State = dict[str, Tensor]


class StepSchedule(Protocol):
    """Step schedule of APGD. num_steps: of one search. age: (n,) on the CPU, steps so far by each row."""

    num_steps: int

    def draw_start(self, clean: Tensor, rng: 'Rng') -> Tensor:
        """Draw a random image in the ball around each clean image."""

    def init_state(self, clean: Tensor, at: Tensor, loss: Tensor) -> State:
        """Return the schedule state of new rows that start at `at`."""

    def step(self, state: State, age: Tensor) -> Tensor:
        """Return the next image of each row."""

    def starts_phase(self, age: Tensor, device: torch.device) -> Tensor:
        """Return bool (n,): whether this move starts a phase, which discards the previous best."""

    def counts_as_success(self, num_steps: Tensor, device: torch.device) -> Tensor:
        """Return bool (n,): whether a fooled image counts after this number of steps."""

    def update_step_size(self, state: State, loss: Tensor, age: Tensor) -> State:
        """Update the step size after a move. Also update the position of rows that return to their best image."""


class HalvingSchedule:
    """Schedule for Linf and L2: step 2 epsilon with momentum, halved at checkpoints with too little gain in loss."""

    FIRST, SHORTER, SHORTEST = 0.22, 0.03, 0.06  # shares of the steps: Croce & Hein 2020, section 3.2
    OWN = 0.75  # weight of a step; the rest is momentum

    def __init__(self, threat: ThreatModel, steps: int, rho: float):
        self.threat, self.num_steps, self.rho = threat, steps, rho
        self.periods = compute_checkpoints(steps)

    def draw_start(self, clean: Tensor, rng: 'Rng') -> Tensor:
        """Draw on the sphere. Under Linf at least one value changes by epsilon (the original normalizes its draw)."""
        draw = 2 * rng.uniform(clean.shape) - 1 if self.threat.norm == 'Linf' else rng.normal(clean.shape)
        return (clean + self.threat.epsilon * draw / _expand(self.threat.get_size(draw)).clamp_min(1e-12)).clamp(0, 1)

    def init_state(self, clean: Tensor, at: Tensor, loss: Tensor) -> State:
        return {'size': torch.full_like(loss, 2 * self.threat.epsilon), 'rises': torch.zeros_like(loss),
                'last_loss': torch.zeros_like(loss),  # the first step is compared to 0, not to the start: an oddity
                'checked_loss': loss, 'halved': torch.ones_like(loss, dtype=torch.bool)}

    def step(self, state: State, age: Tensor) -> Tensor:
        clean, at = state['clean'], state['at']
        direction = self.threat.get_steepest(state['slope'])
        there = self.threat.project_images(clean, at + _expand(state['size']) * direction)
        own = _expand(torch.where(age > 0, self.OWN, 1.0).to(at))
        return self.threat.project_images(clean, at + own * (there - at) + (1 - own) * (at - state['old']))

    def starts_phase(self, age: Tensor, device: torch.device) -> Tensor:
        return torch.zeros(len(age), dtype=torch.bool, device=device)

    def counts_as_success(self, num_steps: Tensor, device: torch.device) -> Tensor:
        return torch.ones(len(num_steps), dtype=torch.bool, device=device)

    def update_step_size(self, state: State, loss: Tensor, age: Tensor) -> State:
        rises = state['rises'] + (loss > state['last_loss'])
        period = self.periods[age]
        if not bool(period.any()):
            return {'rises': rises, 'last_loss': loss}
        due, period = (period > 0).to(loss.device), period.to(loss.device)
        stuck = ~state['halved'] & (state['checked_loss'] >= state['loss'])
        halve = due & ((rises <= self.rho * period) | stuck)
        return {'rises': torch.where(due, 0, rises), 'last_loss': loss,
                'halved': torch.where(due, halve, state['halved']),
                'checked_loss': torch.where(due, state['loss'], state['checked_loss']),
                'size': torch.where(halve, state['size'] / 2, state['size']), **_restore_best(state, halve)}


class SparseSchedule:
    """Schedule for L1: steps along the largest gradients. Their number follows the sparsity of the best perturbation.

    Three phases use 3, 2 and 1 times the radius, each from the best of the previous one. The second and third start
    with an additional move that projects the best image into the smaller ball.
    """

    RADII, SHARES = (3, 2, 1), (0.3, 0.3)  # multiples of epsilon; shares of the steps, the last phase has the rest
    PERIOD = 0.04  # of a phase's steps, between checkpoints
    DENSER = 1.5  # sparsity of a step relative to the best perturbation; also the divisor of the step size
    SHRUNK = 0.95  # share of the values since the last checkpoint below which a perturbation became sparser
    SMALLEST = 10  # maximum reduction factor of the step size

    def __init__(self, threat: ThreatModel, steps: int, rho: float):
        self.threat = threat
        lengths = [min(math.ceil(share * steps), steps) for share in self.SHARES]
        lengths[1] = min(lengths[1], steps - lengths[0])
        lengths.append(steps - sum(lengths))
        self.num_steps = steps + len(lengths) - 1
        radii, opens, due = [], [], []
        for phase, length in enumerate(lengths):
            first = int(phase > 0)
            period = max(int(self.PERIOD * length), 1)
            radii += [self.RADII[phase] * threat.epsilon] * (first + length)
            opens += [True] * first + [False] * length
            due += [False] * first + [(step + 1) % period == 0 for step in range(length)]
        self._radius, self._opens, self._due = torch.tensor(radii), torch.tensor(opens), torch.tensor(due)
        self._counts_from = self.num_steps - lengths[2]

    def draw_start(self, clean: Tensor, rng: 'Rng') -> Tensor:
        return (clean + project_into_box(clean, rng.normal(clean.shape), self._radius[0].item())).clamp(0, 1)

    def init_state(self, clean: Tensor, at: Tensor, loss: Tensor) -> State:
        count = _count_changed_values(at, clean)
        radius = torch.full_like(loss, self._radius[0].item())
        return {'size': radius, 'changed': count, 'share': self._compute_density(count, clean)}

    def step(self, state: State, age: Tensor) -> Tensor:
        clean, opens = state['clean'], self.starts_phase(age, state['clean'].device)
        slope = state['slope'].flatten(1)
        values = slope.shape[1]
        ordered = slope.abs().sort(dim=1).values
        place = ((1 - state['share']) * values).clamp(0, values - 1).long()
        steps = slope.sign() * (slope.abs() >= ordered.gather(1, place[:, None]))
        steps = steps / (steps.abs().sum(1, keepdim=True) + 1e-10) * state['size'][:, None]
        there = choose(opens, state['best'], state['at'] + steps.view_as(clean))
        return clean + project_into_box(clean, there - clean, self._radius[age].to(clean.device))

    def starts_phase(self, age: Tensor, device: torch.device) -> Tensor:
        return self._opens[age].to(device)

    def counts_as_success(self, num_steps: Tensor, device: torch.device) -> Tensor:
        return (num_steps >= self._counts_from).to(device)

    def update_step_size(self, state: State, loss: Tensor, age: Tensor) -> State:
        opens, due = self.starts_phase(age, loss.device), self._due[age].to(loss.device)
        radius = self._radius[age].to(loss)
        count = _count_changed_values(state['best'], state['clean'])
        sparser = due & (count / state['changed'] < self.SHRUNK)
        smaller = torch.maximum(state['size'] / self.DENSER, radius / self.SMALLEST)
        size = torch.where(sparser | opens, radius, torch.where(due, smaller, state['size']))
        moved = opens | due
        return {'size': size, 'changed': torch.where(moved, count, state['changed']),
                'share': torch.where(moved, self._compute_density(count, state['clean']), state['share']),
                **_restore_best(state, sparser)}

    def _compute_density(self, count: Tensor, clean: Tensor) -> Tensor:
        return count / clean[0].numel() / self.DENSER


def compute_checkpoints(steps: int) -> Tensor:
    """Return (steps,) int64: the steps since the last checkpoint at each checkpoint, 0 elsewhere."""
    period = max(int(HalvingSchedule.FIRST * steps), 1)
    shorter, shortest = max(int(HalvingSchedule.SHORTER * steps), 1), max(int(HalvingSchedule.SHORTEST * steps), 1)
    periods, done = torch.zeros(steps, dtype=torch.long), period
    while done <= steps:
        periods[done - 1] = period
        period = max(period - shorter, shortest)
        done += period
    return periods


def _restore_best(state: State, rows: Tensor) -> State:
    """Reset the rows to their best image. Their momentum remains the last move, as in the original."""
    return {'at': choose(rows, state['best'], state['at']), 'slope': choose(rows, state['best_slope'], state['slope'])}


def _count_changed_values(at: Tensor, clean: Tensor) -> Tensor:
    return (at != clean).flatten(1).sum(1).to(at)


def _expand(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
