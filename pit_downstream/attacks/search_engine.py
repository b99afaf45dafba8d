"""Engine of iterative attacks: searches run as parallel rows and leave the batch when they finish.

A row is one search from one image: a restart, or a target class. When an image is fooled, all its rows are replaced
by the next ones in the queue, so the batch stays full and no pass is spent on finished images. Plain PGD on
undefended models then needs a small fraction of its steps. The robustness verdict does not change.
"""

import math
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from pit_downstream.attacks.base import Attack
from pit_downstream.attacks.objective import LOSS_TYPES, Objective, objective_of
from pit_downstream.utils.errors import InputError

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Batch, Predictor, Rng, Streams

State = dict[str, Tensor]  # each (n, ...), a row per search: 'row', 'variant', 'clean', 'found', 'fooled', 'loss', ...
ROOM = 4  # new rows start once 1 / 4 of the batch is free: passes of a few images are inefficient
PATIENCE = 4  # steps between checks for fooled rows on a GPU, where each check synchronizes


@dataclass(frozen=True, kw_only=True)
class Search(Attack):
    """Base class of iterative attacks. steps: moves of one search. loss: maximized on classifiers ('ce', 'margin' ...).

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
    def moves(self) -> int:
        """Moves per row, more than `steps` if a search has several rounds."""
        return self.steps

    @property
    def variants(self) -> int:
        """Searches per image: restarts times targets."""
        return 1

    def jobs(self, objective: Objective) -> int:
        """Return the number of searches per image, which may depend on the number of classes."""
        return self.variants

    def over(self, state: State, age: Tensor) -> Tensor:
        """Return bool (n,) on the CPU: the rows that have finished."""
        return age >= self.moves

    @abstractmethod
    def begin(self, objective: Objective, state: State, rng: 'Rng') -> State:
        """Return the initial state of new rows, including 'found', 'fooled' and 'loss'.

        state: 'row' and 'variant' (n,), 'clean' (n, 3, H, W). rng: one stream per row. All random draws belong here.
        """

    @abstractmethod
    def advance(self, objective: Objective, state: State, age: Tensor, *, last: bool) -> State:
        """Move every row once. age: (n,) on the CPU, moves so far. last: it is the last move of every row."""

    def run(self, predictor: 'Predictor', batch: 'Batch', rng: 'Streams') -> Tensor:
        if self.needs_logits and not hasattr(predictor, 'logits'):
            raise InputError(f'expected a classifier for {type(self).__name__}, got {predictor.name}, which gives no '
                             'logits; take an attack that climbs the loss, such as pgd')
        rough = getattr(predictor, 'rough', False)
        return self.run_search(objective_of(predictor, batch, self.loss), batch.images, rng, rough=rough)[0]

    def run_search(self, objective: Objective, images: Tensor, rng: 'Streams', *, among: Tensor | None = None,
             width: int | None = None, rough: bool = False) -> tuple[Tensor, Tensor]:
        """Return the result of run() and bool (B,): the images that it fooled.

        among: bool (B,), images to search from, by default all that are not misclassified. width: rows per pass, by
        default the number of images. rough: Classifier.rough of the predictor.
        """
        return SearchBatch(self, objective, images, rng, width or len(images), rough).run(among)


class SearchBatch:
    """Search over the images of one batch, `width` rows at a time."""

    def __init__(self, attack: Search, objective: Objective, images: Tensor, rng: 'Streams', width: int, rough: bool):
        self.attack, self.objective, self.images, self.rng = attack, objective, images, rng
        self.width, self.rough, self.moves = width, rough, attack.moves
        self.found = images.clone()
        self.loss = [-math.inf] * len(images)
        self.pause = pause(self.moves, images.device)

    def run(self, among: Tensor | None) -> tuple[Tensor, Tensor]:
        if among is None and self.attack.run_to_end:
            among = torch.ones(len(self.images), dtype=torch.bool)
        # the images that no search has fooled yet
        self.open = (correct_mask(self.objective, self.images, self.rough) if among is None else among).tolist()
        asked = list(self.open)
        queue = deque((image, variant) for variant in range(self.attack.jobs(self.objective) if any(asked) else 0)
                      for image in range(len(self.images)) if self.open[image])
        state, age = None, torch.zeros(0, dtype=torch.long)
        while queue or state is not None:
            state, age = self._refill(state, age, queue)
            if state is None:
                break
            for _ in range(self.pause):
                state |= self._advance(state, age)
                age = age + 1
            state, age = self._settle(state, age)
        return self.found, torch.tensor([was and not still for was, still in zip(asked, self.open, strict=True)],
                                        dtype=torch.bool, device=self.images.device)

    def _refill(self, state: State | None, age: Tensor, queue: deque) -> tuple[State | None, Tensor]:
        free = self.width - len(age)
        jobs = list(_take(queue, free, self.open)) if free * ROOM >= self.width or state is None else []
        if not jobs:
            return state, age
        rows, variants = zip(*jobs, strict=True)
        device = self.images.device
        fresh = {'row': torch.tensor(rows, device=device), 'variant': torch.tensor(variants, device=device)}
        fresh['clean'] = self.images[fresh['row']]
        own = self.rng.rows(rows, variants, type(self.attack).__name__, device)
        fresh |= self.attack.begin(self.objective, fresh, own)
        if not self.attack.run_to_end:
            fresh['caught'] = fresh['found']
        age = torch.cat([age, torch.zeros(len(rows), dtype=torch.long)])
        return (fresh if state is None else {key: torch.cat([state[key], fresh[key]]) for key in fresh}), age

    def _advance(self, state: State, age: Tensor) -> State:
        """Move once. 'caught' keeps the last fooling image, because the check may follow several moves later."""
        last = bool((age == self.moves - 1).all())
        moved = self.attack.advance(self.objective, state, age, last=last)
        if self.attack.run_to_end:
            return moved
        if self.pause == 1 and not bool(state['fooled'].any()):
            moved['caught'] = moved['found']
        else:
            moved['caught'] = torch.where(moved['fooled'][:, None, None, None], moved['found'], state['caught'])
            moved['fooled'] = moved['fooled'] | state['fooled']
        return moved

    def _settle(self, state: State, age: Tensor) -> tuple[State | None, Tensor]:
        """Store the results of fooled and finished rows, and drop these rows."""
        over = self.attack.over(state, age)
        fooled = state['fooled']
        if self.rough and not self.attack.run_to_end and bool(fooled.any()):
            which = fooled.nonzero().flatten()
            fooled = fooled.clone()
            fooled[which] = self.objective.verify(state['caught'][which], state['row'][which])
            state['fooled'] = fooled  # unconfirmed rows continue
        decided = fooled.cpu() & (not self.attack.run_to_end)
        gone = over | decided
        if gone.any():
            self._keep(state, over, decided)
            images = torch.tensor([self.open[row] for row in state['row'].tolist()])
            gone = gone | ~images
        stay = (~gone).nonzero().flatten()
        if not len(stay):
            return None, age[:0]
        where = stay.to(self.images.device)
        return (state if len(stay) == len(age) else {key: value[where] for key, value in state.items()}), age[stay]

    def _keep(self, state: State, over: Tensor, decided: Tensor) -> None:
        rows, loss = state['row'].tolist(), state['loss'].tolist()
        caught, ended = {}, {}  # by image, the index of the row with its result
        for place in decided.nonzero().flatten().tolist():
            if self.open[rows[place]]:
                self.open[rows[place]] = False
                caught[rows[place]] = place
        for place in (over & ~decided).nonzero().flatten().tolist():
            row = rows[place]
            if self.open[row] and loss[place] > self.loss[row]:
                ended[row], self.loss[row] = place, loss[place]
        for which, places in (('caught', caught), ('found', ended)):
            if places:
                self.found[list(places)] = state[which][list(places.values())]


def pause(moves: int, device: torch.device) -> int:
    """Return the number of moves between checks for fooled rows. It divides `moves`, so that rows end at a check."""
    return 1 if device.type == 'cpu' else math.gcd(moves, PATIENCE)


def correct_mask(objective: Objective, images: Tensor, rough: bool) -> Tensor:
    """Return bool (B,): the correctly classified images. rough: verify the images that appear misclassified."""
    wrong = objective.is_misclassified()
    if rough and bool(wrong.any()):
        which = wrong.nonzero().flatten()
        wrong = wrong.clone()
        wrong[which] = objective.verify(images[which], which)
    return ~wrong


def _take(queue: deque, count: int, open_: list[bool]) -> Iterator[tuple[int, int]]:
    """Yield the next jobs whose image is not fooled yet."""
    while queue and count:
        job = queue.popleft()
        if open_[job[0]]:
            count -= 1
            yield job
