"""Engine of iterative attacks: searches run as parallel rows and leave the batch when they finish.

A row is one search from one image: a restart, or a target class. When an image is fooled, all its rows are replaced
by the next ones in the queue, so the batch stays full and no pass is spent on finished images. Plain PGD on
undefended models then needs a small fraction of its steps. The robustness verdict does not change.
"""

import math
from abc import abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from pit_downstream.attacks.base import Attack
from pit_downstream.attacks.objective import LOSS_TYPES, Objective, make_objective
from pit_downstream.attacks.search_state import ActiveSamples, SearchState
from pit_downstream.attacks.threat_model import choose
from pit_downstream.utils.errors import InputError

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Batch, Predictor, Rng, Streams

StateT = TypeVar('StateT', bound=SearchState)
REFILL_SHARE = 4  # new rows start once 1 / 4 of the batch is free: passes of a few images are inefficient
CHECK_INTERVAL = 4  # steps between checks for fooled rows on a GPU, where each check synchronizes


@dataclass(frozen=True, kw_only=True)
class Search(Attack, Generic[StateT]):
    """Base class of iterative attacks, with a state of type StateT.

    steps: of one search. loss: maximized on classifiers ('ce', 'margin' ...).

    run_to_end: no row stops early, and the search with the largest final loss gives the result, for transfer studies.
    By default the first fooling example is the result, and misclassified images stay unchanged. With several searches
    per image, the batch may affect which example is first, but not whether there is one.
    """

    needs_logits: ClassVar[bool] = False  # True: requires logits, not only the predictor's loss
    losses: ClassVar[tuple[str, ...]] = ('ce', 'margin', 'dlr')  # supported losses; others need goals

    steps: int = 20
    loss: str = 'ce'
    run_to_end: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.steps < 1:
            raise InputError(f'steps is 1 or more, got {self.steps}')
        loss_types = () if self.needs_logits else LOSS_TYPES
        if self.loss not in (*self.losses, *loss_types):
            others = f', for a detector of {", ".join(loss_types)}' if loss_types else ''
            raise InputError(f'loss is one of {", ".join(self.losses)} for {type(self).__name__}{others}, got '
                             f'{self.loss!r}')

    @property
    def num_steps(self) -> int:
        """Steps per row, more than `steps` if a search has several rounds."""
        return self.steps

    def count_searches(self, objective: Objective) -> int:
        """Return the number of searches per image: restarts times targets, which depend on the number of classes."""
        return 1

    def is_done(self, state: StateT, age: Tensor) -> Tensor:
        """Return bool (n,) on the CPU: the rows that have finished."""
        return age >= self.num_steps

    @abstractmethod
    def init_state(self, objective: Objective, samples: ActiveSamples, rng: 'Rng') -> StateT:
        """Return the initial state of new rows. rng: one stream per row. All random draws belong in this method."""

    @abstractmethod
    def update_state(self, objective: Objective, state: StateT, age: Tensor, *, last: bool) -> None:
        """Step every row once: assign new tensors to the fields of the state. Tensors do not change in place.

        age: (n,) on the CPU, steps so far. last: it is the last step of every row.
        """

    def run(self, predictor: 'Predictor', batch: 'Batch', rng: 'Streams') -> Tensor:
        if self.needs_logits and not hasattr(predictor, 'logits'):
            raise InputError(f'expected a classifier for {type(self).__name__}, got {predictor.name}, which gives no '
                             'logits; take an attack that climbs the loss, such as pgd')
        rough = getattr(predictor, 'rough', False)
        return self.run_search(make_objective(predictor, batch, self.loss), batch.images, rng, rough=rough)[0]

    def run_search(self, objective: Objective, images: Tensor, rng: 'Streams', *, among: Tensor | None = None,
                   width: int | None = None, rough: bool = False) -> tuple[Tensor, Tensor]:
        """Return the result of run() and bool (B,): the images that it fooled.

        among: bool (B,), images to search from, by default all that are not misclassified. width: rows per pass, by
        default the number of images. rough: Classifier.rough of the predictor.
        """
        return SearchBatch(self, objective, images, rng, width or len(images), rough).run(among)


class SearchBatch(Generic[StateT]):
    """Search over the images of one batch, `width` rows at a time."""

    def __init__(self, attack: Search[StateT], objective: Objective, images: Tensor, rng: 'Streams', width: int,
                 rough: bool):
        self.attack, self.objective, self.images, self.rng = attack, objective, images, rng
        self.width, self.rough = width, rough
        self.results = images.clone()
        self.best_loss = [-math.inf] * len(images)
        self.check_interval = get_check_interval(attack.num_steps, images.device)

    def run(self, among: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the results (B, 3, H, W) and bool (B,): the images that a search fooled."""
        if among is None and self.attack.run_to_end:
            among = torch.ones(len(self.images), dtype=torch.bool)
        selected = (correct_mask(self.objective, self.images, self.rough) if among is None else among).tolist()
        self.robust = list(selected)  # per image: selected, and not fooled so far
        searches = self.attack.count_searches(self.objective) if any(selected) else 0
        queue = deque((image, variant) for variant in range(searches)
                      for image in range(len(self.images)) if selected[image])
        state: StateT | None = None
        age = torch.zeros(0, dtype=torch.long)
        while queue or state is not None:
            state, age = self._add_rows(state, age, queue)
            if state is None:
                break
            for _ in range(self.check_interval):
                self._step_rows(state, age)
                age = age + 1
            state, age = self._remove_rows(state, age)
        fooled = [before and not now for before, now in zip(selected, self.robust, strict=True)]
        return self.results, torch.tensor(fooled, dtype=torch.bool, device=self.images.device)

    def _add_rows(self, state: StateT | None, age: Tensor, queue: deque) -> tuple[StateT | None, Tensor]:
        """Start the next searches of images that are not fooled yet, if enough rows are free."""
        free = self.width - len(age)
        added: list[tuple[int, int]] = []
        if free * REFILL_SHARE >= self.width or state is None:
            while queue and len(added) < free:
                image, variant = queue.popleft()
                if self.robust[image]:
                    added.append((image, variant))
        if not added:
            return state, age
        rows, variants = zip(*added, strict=True)
        device = self.images.device
        index = torch.tensor(rows, device=device)
        samples = ActiveSamples(row=index, variant=torch.tensor(variants, device=device), clean=self.images[index])
        rng = self.rng.rows(rows, variants, type(self.attack).__name__, device)
        new = self.attack.init_state(self.objective, samples, rng)
        if not self.attack.run_to_end:
            new.last_fooling = new.adversarial
        age = torch.cat([age, torch.zeros(len(rows), dtype=torch.long)])
        return (new if state is None else new.concatenate([state, new])), age

    def _step_rows(self, state: StateT, age: Tensor) -> None:
        """Step once, and store the last fooling images, because the check may follow several steps later."""
        last = bool((age == self.attack.num_steps - 1).all())
        fooled_before = state.fooled
        self.attack.update_state(self.objective, state, age, last=last)
        if self.attack.run_to_end:
            return
        if self.check_interval == 1 and not bool(fooled_before.any()):
            state.last_fooling = state.adversarial
        else:
            assert state.last_fooling is not None
            state.last_fooling = choose(state.fooled, state.adversarial, state.last_fooling)
            state.fooled = state.fooled | fooled_before

    def _remove_rows(self, state: StateT, age: Tensor) -> tuple[StateT | None, Tensor]:
        """Store the results of fooled and finished rows, and remove all rows of decided images."""
        done = self.attack.is_done(state, age)
        fooled = state.fooled
        if self.rough and state.last_fooling is not None and bool(fooled.any()):
            which = fooled.nonzero().flatten()
            fooled = fooled.clone()
            fooled[which] = self.objective.verify(state.last_fooling[which], state.row[which])
            state.fooled = fooled  # unconfirmed rows continue
        decided = fooled.cpu() & (not self.attack.run_to_end)
        removed = done | decided
        if removed.any():
            self._store_results(state, done, decided)
            robust = torch.tensor([self.robust[row] for row in state.row.tolist()])
            removed = removed | ~robust
        active = (~removed).nonzero().flatten()
        if not len(active):
            return None, age[:0]
        return (state if len(active) == len(age) else state.select(active.to(self.images.device))), age[active]

    def _store_results(self, state: StateT, done: Tensor, decided: Tensor) -> None:
        """Store the first fooling image of each image, else the one with the largest loss at the end of a search."""
        rows, loss = state.row.tolist(), state.loss.tolist()
        fooling, ended = {}, {}  # by image, the index of the row with its result
        for index in decided.nonzero().flatten().tolist():
            if self.robust[rows[index]]:
                self.robust[rows[index]] = False
                fooling[rows[index]] = index
        for index in (done & ~decided).nonzero().flatten().tolist():
            row = rows[index]
            if self.robust[row] and loss[index] > self.best_loss[row]:
                ended[row], self.best_loss[row] = index, loss[index]
        for images, indices in ((state.last_fooling, fooling), (state.adversarial, ended)):
            if images is not None and indices:
                self.results[list(indices)] = images[list(indices.values())]


def get_check_interval(num_steps: int, device: torch.device) -> int:
    """Return the steps between checks for fooled rows. It divides `num_steps`, so that rows end at a check."""
    return 1 if device.type == 'cpu' else math.gcd(num_steps, CHECK_INTERVAL)


def correct_mask(objective: Objective, images: Tensor, rough: bool) -> Tensor:
    """Return bool (B,): the correctly classified images. rough: verify the images that appear misclassified."""
    wrong = objective.is_misclassified()
    if rough and bool(wrong.any()):
        which = wrong.nonzero().flatten()
        wrong = wrong.clone()
        wrong[which] = objective.verify(images[which], which)
    return ~wrong
