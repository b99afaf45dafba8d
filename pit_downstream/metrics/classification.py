"""Top-1 and top-5 error, negative log likelihood and calibration error of a classifier.

Metrics measure per-image values. Their means are taken over all images in the order of the dataset, so the same
predictions give bit-identical numbers for any batch size and number of ranks.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pit_downstream.results.outcomes import Outcomes
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Batch, MetricValue, Outputs
from pit_downstream.utils.registry import METRICS

BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks"


def compute_top_k_errors(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Return whether each label is missing from the k largest logits, bool (B,).

    logits: (B, K). Ties are resolved in favor of the lower class index. labels: int (B,) in 0..K - 1.
    """
    mine = logits.gather(1, labels[:, None])
    classes = torch.arange(logits.shape[1], device=logits.device)
    before = (logits > mine) | ((logits == mine) & (classes < labels[:, None]))
    return before.sum(1) >= k


def compute_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Return -log of the label's softmax probability in nats, float64 (B,)."""
    return torch.nn.functional.cross_entropy(logits.double(), labels, reduction='none')


def compute_ece(confidences: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Compute the expected calibration error: the sum over bins of (image fraction) * |accuracy - mean confidence|.

    Bin i has the confidences in (i / bins, (i + 1) / bins], as in Guo et al. 2017.

    Args:
        confidences: Largest softmax probability of each image, float64 (N,).
        correct: Whether each prediction is right, bool (N,).
    """
    index = np.clip(np.ceil(confidences * bins).astype(int), 1, bins) - 1
    gaps = [abs(math.fsum(correct[index == bin].astype(float)) - math.fsum(confidences[index == bin]))
            for bin in range(bins)]
    return math.fsum(gaps) / len(confidences)


class ClassificationMetric:
    """Base class of metrics with one value per image, of which the number is the mean.

    Attributes:
        name: Name of the number.
        value_names: Names of the per-image values that it needs.
    """

    needs_trace = False
    name: str

    @property
    def value_names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def record_name(self) -> str:
        """Name of a number that is recorded last: if it is recorded, all are."""
        return self.name

    def measure(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return per-image values (B,) by name. outputs.predictions: logits (B, K). Targets are class indices."""
        raise NotImplementedError

    def compute(self, outcomes: Outcomes, samples: Any) -> list[MetricValue]:
        """Return the mean over the images with a value. Raises InputError if there is none."""
        values = outcomes.get_values(self.name).astype(float)
        values = values[np.isfinite(values)]
        require_images(len(values))
        return [MetricValue(self.name, math.fsum(values) / len(values), len(values))]


class TopError(ClassificationMetric):
    """Fraction of images whose label is not among the k classes with the largest logits."""

    def __init__(self, k: int):
        self.k, self.name = k, f'top{k}_error'

    def measure(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        logits = outputs.predictions.float()
        return {self.name: compute_top_k_errors(logits, get_labels(batch, logits), self.k)}


@METRICS.register('nll')
class NegativeLogLikelihood(ClassificationMetric):
    """Mean of -log p(label), in nats."""

    name = 'nll'

    def measure(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        logits = outputs.predictions.float()
        return {self.name: compute_nll(logits, get_labels(batch, logits))}


@METRICS.register('ece')
class CalibrationError(ClassificationMetric):
    """Expected calibration error over 15 bins of equal width, in [0, 1]."""

    name = 'ece'
    value_names = ('confidence', 'top1_error')

    def measure(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        logits = outputs.predictions.float()
        confidence = logits.double().softmax(1).amax(1)
        return {'confidence': confidence, 'top1_error': compute_top_k_errors(logits, get_labels(batch, logits), 1)}

    def compute(self, outcomes: Outcomes, samples: Any) -> list[MetricValue]:
        confidences, errors = (outcomes.get_values(name) for name in self.value_names)
        require_images(len(errors))
        return [MetricValue(self.name, compute_ece(confidences, errors == 0), len(errors))]


@METRICS.register('top1_error')
def make_top1_error() -> TopError:
    return TopError(1)


@METRICS.register('top5_error')
def make_top5_error() -> TopError:
    return TopError(5)


CLASSIFICATION = ('top1_error', 'top5_error', 'nll', 'ece')


def make_classification_metrics() -> list[ClassificationMetric]:
    """Return a new instance of each metric."""
    return [METRICS[name]() for name in CLASSIFICATION]


def require_images(count: int) -> None:
    """Raise InputError for a number of no images."""
    if not count:
        raise InputError('no image has a value. Check the data and --limit.')


def get_labels(batch: Batch, logits: Tensor) -> Tensor:
    """Return the class indices (B,) on the device of the logits."""
    targets = [sample.target for sample in batch.samples]
    if targets and not 0 <= min(targets) <= max(targets) < logits.shape[1]:
        raise InputError(f'labels must be in 0..{logits.shape[1] - 1}, the classes of the model, got '
                         f'{min(targets)}..{max(targets)}. Pass a model with as many classes as the data has.')
    return torch.tensor(targets, device=logits.device)
