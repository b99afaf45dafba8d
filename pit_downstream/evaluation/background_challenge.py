"""Adversarial backgrounds challenge: share of foregrounds misclassified on at least one of many backgrounds."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pit_downstream.datasets.backgrounds import IN9, Challenge
from pit_downstream.metrics.classification import require_images
from pit_downstream.metrics.label_sets import compute_label_set_errors
from pit_downstream.results.condition import Condition
from pit_downstream.results.outcomes import Outcomes
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Batch, MetricValue, Predictor, Sample

ERROR = 'top1_error'


class ChallengeSamples:
    """Foregrounds of the challenge. Instead of one prediction, each is tried on every background.

    Args:
        challenge: The images.
        batch_size: Pairs of foreground and background per forward pass.
    """

    def __init__(self, challenge: Challenge, *, batch_size: int):
        self.challenge, self.batch_size = challenge, batch_size
        self.name, self.ids, self.targets = challenge.samples.name, challenge.samples.ids, challenge.samples.targets

    def __len__(self) -> int:
        return len(self.challenge.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.challenge.samples[index]

    def at(self, condition: Condition) -> tuple['ChallengeSamples', Condition]:
        return self, condition

    def measure_batch(self, predictor: Predictor, batch: Batch, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return whether any background fools each foreground, {'top1_error': bool (B,)}. indices: of the dataset."""
        images = torch.stack([sample.image for sample in batch.samples])
        masks = [self.challenge.load_mask(index) for index in indices]
        for index, mask in zip(indices, masks, strict=True):
            if mask.shape != images.shape[-2:]:
                raise InputError(f'the mask of {self.ids[index]} has {_format_size(mask)} pixels, its image '
                                 f'{_format_size(images)}. Pass a model of 224 pixels, for which the masks were made.')
        device = torch.device(predictor.device)
        fooled = torch.zeros(len(images), dtype=torch.bool)
        labels = [sample.target for sample in batch.samples]
        for target in dict.fromkeys(labels):
            rows = [row for row, label in enumerate(labels) if label == target]
            fooled[rows] = find_fooled(predictor, images[rows].to(device),
                                       torch.stack([masks[row] for row in rows])[:, None].to(device),
                                       self._backgrounds.to(device), target, batch_size=self.batch_size)
        return {ERROR: fooled}

    @cached_property
    def _backgrounds(self) -> Tensor:
        """All backgrounds, uint8 (M, 3, H, W): 0.6 GB for 4,000 of 224 pixels."""
        backgrounds = self.challenge.backgrounds
        assert backgrounds is not None  # optional only because Shift has fields with defaults
        return torch.stack([backgrounds[index].image for index in range(len(backgrounds))])

    def __getstate__(self) -> dict:
        """Leave out the backgrounds, which workers do not need."""
        return {key: value for key, value in self.__dict__.items() if key != '_backgrounds'}


class ChallengeError:
    """Fraction of foregrounds that at least one background fools, overall and per class."""

    name = record_name = ERROR
    value_names = (ERROR,)
    needs_trace = False

    def measure(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        raise InputError('the challenge needs its foregrounds and backgrounds. Pass the samples of in9_challenge.')

    def compute(self, outcomes: Outcomes, samples: ChallengeSamples) -> list[MetricValue]:
        """Return the number of every class with images, then the overall one."""
        errors, values = outcomes.get_dense(ERROR), []
        assert errors is not None
        labels = {indices: name for name, indices in IN9.items()}
        classes: dict[str, list[float]] = {}
        for target, error in zip(samples.targets, errors.tolist(), strict=True):
            if not math.isnan(error):
                classes.setdefault(labels[target], []).append(error)  # type: ignore[index]
        every = [error for group in classes.values() for error in group]
        require_images(len(every))
        values = [MetricValue(ERROR, sum(classes[name]) / len(classes[name]), len(classes[name]), class_name=name)
                  for name in IN9 if name in classes]
        return [*values, MetricValue(ERROR, sum(every) / len(every), len(every))]


def find_fooled(predictor: Predictor, foregrounds: Tensor, masks: Tensor, backgrounds: Tensor, labels: tuple[int, ...],
                *, batch_size: int = 32) -> Tensor:
    """Return for each foreground whether any background leads to a prediction outside `labels`, bool (N,).

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
        wrong = torch.cat([_is_wrong(predictor, foregrounds[part], masks[part], some, labels)
                           for part in alive.split(batch_size)])
        fooled[alive[wrong]] = True
        alive, start = alive[~wrong], start + len(some)
    return fooled


def _is_wrong(predictor: Predictor, foregrounds: Tensor, masks: Tensor, backgrounds: Tensor, labels: tuple[int, ...]
              ) -> Tensor:
    """Return fooled foregrounds, bool (N,) on the CPU. All pairs form one batch, so there must be few."""
    pasted = torch.where(masks[:, None], foregrounds[:, None], backgrounds).flatten(0, 1)
    batch = predictor.collate([Sample('', image, labels) for image in pasted], pasted)
    logits = predictor.predict(batch.images, batch).predictions
    if not logits.isfinite().all():
        raise InputError('the logits have NaN or infinity. Check the weights, or pass --precision float32.')
    errors = compute_label_set_errors(logits, [labels] * len(pasted))
    return errors.view(len(foregrounds), -1).any(1).cpu()


def _format_size(images: Tensor) -> str:
    return ' x '.join(map(str, images.shape[-2:]))
