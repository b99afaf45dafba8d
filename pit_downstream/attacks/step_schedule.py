"""Step schedules of APGD: one class for Linf and L2, one for L1. Rows may have different ages.

Follows fra31/auto-attack a392200, autopgd_base.py.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from pit_downstream.attacks.projections import project_into_box
from pit_downstream.attacks.search_state import SearchState, TensorRows
from pit_downstream.attacks.threat_model import ThreatModel, choose

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng

ScheduleT = TypeVar('ScheduleT', bound=TensorRows)


@dataclass(kw_only=True)
class APGDState(SearchState, Generic[ScheduleT]):
    """State of APGD. loss: of the best image.

    position, previous, best: (n, 3, H, W), the current image, the one before and the one with the largest loss.
    gradient, best_gradient: at the current and the best image. has_fooled: bool (n,), whether an image has fooled; the
    result with eot > 1. goals: target classes (n,) of a targeted search. schedule: state of the step schedule.
    """

    position: Tensor
    previous: Tensor
    gradient: Tensor
    best: Tensor
    best_gradient: Tensor
    has_fooled: Tensor
    goals: Tensor | None
    schedule: ScheduleT

    def restore_best(self, rows: Tensor) -> None:
        """Reset the rows to their best image. Their momentum remains the last move, as in the original."""
        self.position = choose(rows, self.best, self.position)
        self.gradient = choose(rows, self.best_gradient, self.gradient)


class StepSchedule(Protocol[ScheduleT]):
    """Step schedule of APGD. num_steps: of one search. age: (n,) on the CPU, steps so far by each row."""

    num_steps: int

    def draw_start(self, clean: Tensor, rng: 'Rng') -> Tensor:
        """Draw a random image in the ball around each clean image."""

    def init_state(self, clean: Tensor, images: Tensor, loss: Tensor) -> ScheduleT:
        """Return the schedule state of new rows that start at `images`."""

    def step(self, state: APGDState[ScheduleT], age: Tensor) -> Tensor:
        """Return the next image of each row."""

    def starts_phase(self, age: Tensor, device: torch.device) -> Tensor:
        """Return bool (n,): whether this move starts a phase, which discards the previous best."""

    def counts_as_success(self, num_steps: Tensor, device: torch.device) -> Tensor:
        """Return bool (n,): whether a fooled image counts after this number of steps."""

    def update_step_size(self, state: APGDState[ScheduleT], loss: Tensor, age: Tensor) -> None:
        """Update the step size after a move. Also reset the rows that return to their best image."""


@dataclass(kw_only=True)
class HalvingState(TensorRows):
    """State of HalvingSchedule, each (n,).

    num_rises: moves that increased the loss since the last checkpoint. last_loss: after the last move. checked_loss,
    halved: best loss at the last checkpoint, and whether it halved the step size.
    """

    step_size: Tensor
    num_rises: Tensor
    last_loss: Tensor
    checked_loss: Tensor
    halved: Tensor


class HalvingSchedule:
    """Schedule for Linf and L2: step 2 epsilon with momentum, halved at checkpoints with too little gain in loss."""

    FIRST, SHORTER, SHORTEST = 0.22, 0.03, 0.06  # shares of the steps: Croce & Hein 2020, section 3.2
    STEP_WEIGHT = 0.75  # the rest is momentum

    def __init__(self, threat: ThreatModel, steps: int, rho: float):
        self.threat, self.num_steps, self.rho = threat, steps, rho
        self.periods = compute_checkpoints(steps)

    def draw_start(self, clean: Tensor, rng: 'Rng') -> Tensor:
        """Draw on the sphere. Under Linf at least one value changes by epsilon (the original normalizes its draw)."""
        draw = 2 * rng.uniform(clean.shape) - 1 if self.threat.norm == 'Linf' else rng.normal(clean.shape)
        return (clean + self.threat.epsilon * draw / _expand(self.threat.get_size(draw)).clamp_min(1e-12)).clamp(0, 1)

    def init_state(self, clean: Tensor, images: Tensor, loss: Tensor) -> HalvingState:
        zero = torch.zeros_like(loss)  # the first step is compared to 0, not to the start: an oddity
        return HalvingState(step_size=torch.full_like(loss, 2 * self.threat.epsilon), num_rises=zero, last_loss=zero,
                            checked_loss=loss, halved=torch.ones_like(loss, dtype=torch.bool))

    def step(self, state: APGDState[HalvingState], age: Tensor) -> Tensor:
        clean, position = state.clean, state.position
        direction = self.threat.get_steepest(state.gradient)
        target = self.threat.project_images(clean, position + _expand(state.schedule.step_size) * direction)
        weight = _expand(torch.where(age > 0, self.STEP_WEIGHT, 1.0).to(position))
        momentum = (1 - weight) * (position - state.previous)
        return self.threat.project_images(clean, position + weight * (target - position) + momentum)

    def starts_phase(self, age: Tensor, device: torch.device) -> Tensor:
        return torch.zeros(len(age), dtype=torch.bool, device=device)

    def counts_as_success(self, num_steps: Tensor, device: torch.device) -> Tensor:
        return torch.ones(len(num_steps), dtype=torch.bool, device=device)

    def update_step_size(self, state: APGDState[HalvingState], loss: Tensor, age: Tensor) -> None:
        schedule = state.schedule
        schedule.num_rises = schedule.num_rises + (loss > schedule.last_loss)
        schedule.last_loss = loss
        period = self.periods[age]
        if not bool(period.any()):
            return
        due, period = (period > 0).to(loss.device), period.to(loss.device)
        stuck = ~schedule.halved & (schedule.checked_loss >= state.loss)
        halve = due & ((schedule.num_rises <= self.rho * period) | stuck)
        schedule.num_rises = torch.where(due, 0, schedule.num_rises)
        schedule.halved = torch.where(due, halve, schedule.halved)
        schedule.checked_loss = torch.where(due, state.loss, schedule.checked_loss)
        schedule.step_size = torch.where(halve, schedule.step_size / 2, schedule.step_size)
        state.restore_best(halve)


@dataclass(kw_only=True)
class SparseState(TensorRows):
    """State of SparseSchedule, each (n,).

    num_changed: values in which the best image differed from the clean one at the last checkpoint. density: share of
    the values that a step changes.
    """

    step_size: Tensor
    num_changed: Tensor
    density: Tensor


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

    def init_state(self, clean: Tensor, images: Tensor, loss: Tensor) -> SparseState:
        count = _count_changed_values(images, clean)
        return SparseState(step_size=torch.full_like(loss, self._radius[0].item()), num_changed=count,
                           density=self._compute_density(count, clean))

    def step(self, state: APGDState[SparseState], age: Tensor) -> Tensor:
        clean, opens = state.clean, self.starts_phase(age, state.clean.device)
        gradient = state.gradient.flatten(1)
        values = gradient.shape[1]
        ordered = gradient.abs().sort(dim=1).values
        index = ((1 - state.schedule.density) * values).clamp(0, values - 1).long()
        steps = gradient.sign() * (gradient.abs() >= ordered.gather(1, index[:, None]))
        steps = steps / (steps.abs().sum(1, keepdim=True) + 1e-10) * state.schedule.step_size[:, None]
        target = choose(opens, state.best, state.position + steps.view_as(clean))
        return clean + project_into_box(clean, target - clean, self._radius[age].to(clean.device))

    def starts_phase(self, age: Tensor, device: torch.device) -> Tensor:
        return self._opens[age].to(device)

    def counts_as_success(self, num_steps: Tensor, device: torch.device) -> Tensor:
        return (num_steps >= self._counts_from).to(device)

    def update_step_size(self, state: APGDState[SparseState], loss: Tensor, age: Tensor) -> None:
        schedule = state.schedule
        opens, due = self.starts_phase(age, loss.device), self._due[age].to(loss.device)
        radius = self._radius[age].to(loss)
        count = _count_changed_values(state.best, state.clean)
        sparser = due & (count / schedule.num_changed < self.SHRUNK)
        smaller = torch.maximum(schedule.step_size / self.DENSER, radius / self.SMALLEST)
        schedule.step_size = torch.where(sparser | opens, radius, torch.where(due, smaller, schedule.step_size))
        moved = opens | due
        schedule.num_changed = torch.where(moved, count, schedule.num_changed)
        schedule.density = torch.where(moved, self._compute_density(count, state.clean), schedule.density)
        state.restore_best(sparser)

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


def _count_changed_values(images: Tensor, clean: Tensor) -> Tensor:
    return (images != clean).flatten(1).sum(1).to(images)


def _expand(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
