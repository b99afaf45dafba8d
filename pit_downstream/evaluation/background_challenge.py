"""Adversarial backgrounds challenge: share of foregrounds misclassified on at least one of many backgrounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from tqdm import tqdm

from pit_downstream.results.condition import CLEAN
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Predictor, Sample
from pit_downstream.utils.spec import Spec
from pit_downstream.results.records import Record, ResultStore, Table
from pit_downstream.datasets.backgrounds import IN9, Challenge
from pit_downstream.datasets.base import Samples
from pit_downstream.metrics.label_sets import compute_label_set_errors
from pit_downstream.evaluation.keep import log_run
from pit_downstream.evaluation.evaluator import START
from pit_downstream.evaluation.distributed import broadcast, all_gather, rank, raise_on_all_ranks, world

ERROR = 'top1_error'


def class_error(name: str) -> str:
    """Return the metric of the error of one class: "top1_error(class='dog')"."""
    return str(Spec(ERROR, (('class', name),)))


def keep_challenge(store: ResultStore, predictor: Predictor, challenge: Challenge, *, seed: int = 0,
                   batch_size: int | str = 'auto', show: bool = False, **_: Any) -> Table:
    """Measure the share of foregrounds that at least one background fools, overall and per class.

    Each class is one record and is stored when it is complete, so an interrupted run resumes with the next class. Ranks
    share the foregrounds of a class. Other options of `measure_passes` are ignored: an unreadable image ends the run.
    """
    run = _Run(store, predictor, challenge, seed)
    size = START.get(torch.device(predictor.device).type, 32) if batch_size == 'auto' else int(batch_size)
    table = run.table()
    missing = [name for name in IN9 if (CLEAN, class_error(name)) not in table and run.of_class(name)]
    if missing:
        log_run(store, predictor, seed)
        assert challenge.backgrounds is not None  # optional only because Shift has fields with defaults
        grounds = _images(challenge.backgrounds, range(len(challenge.backgrounds))).to(predictor.device)
    for name in tqdm(missing, unit='class', disable=None if show and rank() == 0 else True):
        fooled = _of_all_ranks(partial(run.fooled, run.of_class(name)[rank()::world()], grounds, size))
        run.keep(class_error(name), sum(fooled), len(fooled))
    if (CLEAN, ERROR) not in table:
        classes = [record for record in run.table().records if record.metric != ERROR]
        run.keep(ERROR, sum(round(one.value * one.count) for one in classes), sum(one.count for one in classes))
    return run.table()


def _of_all_ranks(own: Callable[[], list[bool]]) -> list[bool]:
    """Gather the results of all ranks, or raise the error of one of them on all."""
    try:
        found, refusal = own(), None
    except ValueError as error:
        found, refusal = [], error
    raise_on_all_ranks(refusal)
    return all_gather(found)


def fooled_by_any(predictor: Predictor, foregrounds: Tensor, masks: Tensor, backgrounds: Tensor,
                  answers: tuple[int, ...], *, batch_size: int = 32) -> Tensor:
    """Return for each foreground whether any background leads to a prediction outside `answers`, bool (N,).

    Fooled foregrounds are not tried again. Source: MadryLab/backgrounds_challenge, challenge_eval.py.

    Args:
        foregrounds: uint8 (N, 3, H, W).
        masks: bool (N, 1, H, W), True on the foreground.
        backgrounds: uint8 (M, 3, H, W). All tensors are on one device.
    """
    fooled = torch.zeros(len(foregrounds), dtype=torch.bool)
    alive, start = torch.arange(len(foregrounds)), 0
    while len(alive) and start < len(backgrounds):
        some = backgrounds[start:start + max(1, batch_size // len(alive))]
        wrong = torch.cat([_wrong(predictor, foregrounds[part], masks[part], some, answers)
                           for part in alive.split(batch_size)])
        fooled[alive[wrong]] = True
        alive, start = alive[~wrong], start + len(some)
    return fooled


def _wrong(predictor: Predictor, foregrounds: Tensor, masks: Tensor, backgrounds: Tensor, answers: tuple[int, ...]
           ) -> Tensor:
    """Return fooled foregrounds, bool (N,) on the CPU. All pairs form one batch, so there must be few."""
    pasted = torch.where(masks[:, None], foregrounds[:, None], backgrounds).flatten(0, 1)
    batch = predictor.collate([Sample('', image, answers) for image in pasted])
    logits = predictor.predict(batch.images, batch).predictions
    if not logits.isfinite().all():
        raise InputError('the logits have NaN or infinity. Check the weights, or pass --precision float32.')
    errors = compute_label_set_errors(logits, [answers] * len(pasted))
    return errors.view(len(foregrounds), -1).any(1).cpu()


@dataclass(frozen=True)
class _Run:
    """Store, predictor, challenge and seed of one run."""

    store: ResultStore
    predictor: Predictor
    challenge: Challenge
    seed: int

    def table(self) -> Table:
        dataset = self.challenge.samples.name
        return broadcast(self.store.table(self.predictor.name, dataset, seed=self.seed) if rank() == 0 else None)

    def keep(self, metric: str, fooled: int, count: int) -> None:
        if rank() == 0:
            self.store.add(Record(self.predictor.name, self.challenge.samples.name, str(CLEAN), metric,
                                  fooled / count, count, self.seed))

    def of_class(self, name: str) -> list[int]:
        """Return the indices of the foregrounds of a class."""
        return [index for index, indices in enumerate(self.challenge.samples.targets) if indices == IN9[name]]

    def fooled(self, chosen: Sequence[int], backgrounds: Tensor, size: int) -> list[bool]:
        """Return the verdicts on some foregrounds of one class."""
        if not chosen:
            return []
        images, masks = _images(self.challenge.samples, chosen), [self.challenge.load_mask(index) for index in chosen]
        device = backgrounds.device
        for index, mask in zip(chosen, masks, strict=True):
            if mask.shape != images.shape[-2:]:
                raise InputError(f'expected a mask of {_size(images)} for {self.challenge.samples.ids[index]}, as its '
                                 f'image, got {_size(mask)}; give a model of 224 pixels, for which they were made')
        answers = cast(tuple[int, ...], self.challenge.samples.targets[chosen[0]])
        return fooled_by_any(self.predictor, images.to(device), torch.stack(masks)[:, None].to(device), backgrounds,
                             answers, batch_size=size).tolist()


def _images(samples: Samples, indices: Sequence[int]) -> Tensor:
    """Stack images to uint8 (N, 3, H, W): 0.6 GB for 4,000 backgrounds of 224 pixels."""
    return torch.stack([samples[index].image for index in indices])


def _size(images: Tensor) -> str:
    return ' x '.join(map(str, images.shape[-2:]))
