"""Search: the iterative attacks as rows that move side by side and leave the batch as soon as they are done.

A row is one search from one image: a restart, or a target class. A fooled image frees the places of all its rows for
the next ones in the queue, so the batch stays full and no pass is spent on what is decided. (Plain PGD on undefended
models needs a small fraction of its steps; nothing changes in what counts as robust.)
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
from pit_downstream.attacks.objective import KINDS, Objective, objective_of

if TYPE_CHECKING:
    from pit_downstream.core.contracts import Batch, Predictor, Rng, Streams

State = dict[str, Tensor]  # each (n, ...), a row per search: 'row', 'variant', 'clean', 'found', 'fooled', 'loss', ...
ROOM = 4  # rows are begun together, once a quarter of the places is free: passes of a few images are dear
PATIENCE = 4  # steps between looks at what is fooled on a GPU, where every look waits for it


@dataclass(frozen=True, kw_only=True)
class Search(Attack):
    """steps: moves of one search. loss: what it climbs on a classifier ('ce', 'margin' ...).

    run_to_end: no row leaves early, and of an image's searches the one that ends with the largest loss gives the
    result, for transfer studies. Otherwise it is the example that fools first (with several searches per image, which
    one is first may depend on the batch; whether there is one does not), and images that are misclassified already
    are left as they are.
    """

    needs_logits: ClassVar[bool] = False  # True: cannot work on a predictor's loss alone
    losses: ClassVar[tuple[str, ...]] = ('ce', 'margin', 'dlr')  # what it may climb: others need goals it has not

    steps: int = 20
    loss: str = 'ce'
    run_to_end: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(f'steps is 1 or more, got {self.steps}')
        kinds = () if self.needs_logits else KINDS
        if self.loss not in (*self.losses, *kinds):
            others = f', for a detector of {", ".join(kinds)}' if kinds else ''
            raise ValueError(f'loss is one of {", ".join(self.losses)} for {type(self).__name__}{others}, got '
                             f'{self.loss!r}')

    @property
    def moves(self) -> int:
        """How often a row moves; more than `steps` where a search goes through several rounds of them."""
        return self.steps

    @property
    def variants(self) -> int:
        """Searches per image: restarts times targets."""
        return 1

    def jobs(self, objective: Objective) -> int:
        """Searches per image, where the number of classes has a say in it."""
        return self.variants

    def over(self, state: State, age: Tensor) -> Tensor:
        """bool (n,) on the CPU: the rows that are at their end."""
        return age >= self.moves

    @abstractmethod
    def begin(self, objective: Objective, state: State, rng: 'Rng') -> State:
        """What fresh rows need, with 'found', 'fooled' and 'loss' among it.

        state: 'row' and 'variant' (n,), 'clean' (n, 3, H, W). rng: a stream per row; all draws of a search belong here.
        """

    @abstractmethod
    def advance(self, objective: Objective, state: State, age: Tensor, *, last: bool) -> State:
        """One move of every row. age: (n,) on the CPU, moves made so far. last: for each row it is the last."""

    def run(self, predictor: 'Predictor', batch: 'Batch', rng: 'Streams') -> Tensor:
        if self.needs_logits and not hasattr(predictor, 'logits'):
            raise ValueError(f'expected a classifier for {type(self).__name__}, got {predictor.name}, which gives no '
                             'logits; take an attack that climbs the loss, such as pgd')
        rough = getattr(predictor, 'rough', False)
        return self.run_search(objective_of(predictor, batch, self.loss), batch.images, rng, rough=rough)[0]

    def run_search(self, objective: Objective, images: Tensor, rng: 'Streams', *, among: Tensor | None = None,
             width: int | None = None, rough: bool = False) -> tuple[Tensor, Tensor]:
        """What run() gives, and which of the images bool (B,) were fooled by it.

        among: bool (B,), the images to search from; unless it is given, all that are not fooled already. width: rows
        at a time, as many as there are images unless given. rough: Classifier.rough of whom the objective asks.
        """
        return SearchBatch(self, objective, images, rng, width or len(images), rough).run(among)


class SearchBatch:
    """The images of one batch under one search, `width` rows at a time."""

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
        """A move. 'caught' holds what fooled last, since a look may come only after further moves."""
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
        """Take results from the rows that are fooled or at their end, and drop these rows."""
        over = self.attack.over(state, age)
        fooled = state['fooled']
        if self.rough and not self.attack.run_to_end and bool(fooled.any()):
            which = fooled.nonzero().flatten()
            fooled = fooled.clone()
            fooled[which] = self.objective.verify(state['caught'][which], state['row'][which])
            state['fooled'] = fooled  # what is not confirmed goes on
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
        caught, ended = {}, {}  # by image, the place of the row that gives its result
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
    """How many moves are made between looks at what is fooled; a divisor of `moves`, so that rows end at a look."""
    return 1 if device.type == 'cpu' else math.gcd(moves, PATIENCE)


def correct_mask(objective: Objective, images: Tensor, rough: bool) -> Tensor:
    """bool (B,): the images of a batch that are not fooled as they are. rough: ask again about those that seem so."""
    wrong = objective.is_misclassified()
    if rough and bool(wrong.any()):
        which = wrong.nonzero().flatten()
        wrong = wrong.clone()
        wrong[which] = objective.verify(images[which], which)
    return ~wrong


def _take(queue: deque, count: int, open_: list[bool]) -> Iterator[tuple[int, int]]:
    """The next jobs whose image is not yet fooled."""
    while queue and count:
        job = queue.popleft()
        if open_[job[0]]:
            count -= 1
            yield job
