"""Top-1 and top-5 error, negative log likelihood and calibration error of a classifier.

Sums are kept as integers on the device: real values are first rounded to 2^-24. Integer addition does not depend on
the order, so the same predictions give bit-identical values in one process and in many.
"""

import math

import torch
import torch.distributed as dist
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Batch, Outputs
from pit_downstream.utils.registry import METRICS

BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks"
_UNIT = 2 ** 24  # 6e-8 is finer than float32 logits, and the sum of 50,000 values of 1e7 is below 2^63


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


def count_calibration_bins(logits: Tensor, labels: Tensor, bins: int = BINS) -> Tensor:
    """Return images, correct images and the sum of confidences (in units of 2^-24) per bin, int64 (3, bins).

    Bin i has the confidences in (i / bins, (i + 1) / bins], as in Guo et al. 2017.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    values = torch.stack([torch.ones_like(place), (predicted == labels).long(), _convert_to_fixed_point(confidence)])
    return values.new_zeros(3, bins).index_add_(1, place, values)


def compute_ece(counts: Tensor) -> float:
    """Return the sum over bins of (image fraction) * |accuracy - mean confidence|. counts: of calibration_counts."""
    images, right, confidence = counts.double()
    return ((right - confidence / _UNIT).abs().sum() / images.sum()).item()


class ClassificationMetric:
    """Base class of metrics summed over batches. Subclasses define `shape`, `sums` (of a batch) and `value`."""

    needs_trace = False
    higher_is_better = False
    name: str
    shape: tuple[int, ...] = ()

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        self.count = 0
        self._total = torch.zeros(math.prod(self.shape) + 2, dtype=torch.long)  # sums, bad images, images

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Add a batch. outputs.predictions: logits (B, K). The target of each sample is its class index."""
        logits = outputs.predictions.float()
        self.add(self.compute_sums(logits, _get_labels(batch, logits)), logits)

    def add(self, sums: Tensor, logits: Tensor) -> None:
        """Add the sums of a batch and count its images."""
        bad = (~logits.isfinite().all(1)).sum()
        added = torch.cat([sums.flatten(), torch.stack([bad, torch.full_like(bad, len(logits))])])
        self._total = self._total.to(added.device) + added

    def compute(self) -> dict[str, float]:
        """Return the value by name. Raises InputError for no images, and for non-finite logits."""
        *sums, bad, self.count = _sum_over_ranks(self._total).tolist()
        if not self.count:
            raise InputError('expected at least one image, got none; check the data and --limit')
        if bad:
            raise InputError(f'expected finite logits, got NaN or infinity for {bad} of {self.count} images; check '
                             'the weights, or measure with --precision float32')
        return {self.name: self.value(torch.tensor(sums).view(self.shape))}

    def compute_sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the sums of a batch, int64 of `shape`."""
        raise NotImplementedError

    def value(self, sums: Tensor) -> float:
        raise NotImplementedError


class TopError(ClassificationMetric):
    """Fraction of images whose label is not among the k classes with the largest logits."""

    def __init__(self, k: int):
        self.k, self.name = k, f'top{k}_error'
        super().__init__()

    def compute_sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        return compute_top_k_errors(logits, labels, self.k).sum()

    def value(self, sums: Tensor) -> float:
        return sums.item() / self.count


@METRICS.register('nll')
class NegativeLogLikelihood(ClassificationMetric):
    """Mean of -log p(label), in nats."""

    name = 'nll'

    def compute_sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        return _convert_to_fixed_point(compute_nll(logits, labels)).sum()

    def value(self, sums: Tensor) -> float:
        return sums.item() / _UNIT / self.count


@METRICS.register('ece')
class CalibrationError(ClassificationMetric):
    """Expected calibration error over 15 bins of equal width, in [0, 1]."""

    name, shape = 'ece', (3, BINS)

    def compute_sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        return count_calibration_bins(logits, labels)

    def value(self, sums: Tensor) -> float:
        return compute_ece(sums)


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


def _convert_to_fixed_point(values: Tensor) -> Tensor:
    """Convert float64 values in [0, 1e7] to integer multiples of 2^-24. Non-finite values are 0, counted separately."""
    return (values.nan_to_num(0, 0, 0).clamp(max=1e7) * _UNIT).round().long()


def _get_labels(batch: Batch, logits: Tensor) -> Tensor:
    """Return the class indices (B,) on the device of the logits."""
    targets = [sample.target for sample in batch.samples]
    if targets and not 0 <= min(targets) <= max(targets) < logits.shape[1]:
        raise InputError(f'expected labels in 0..{logits.shape[1] - 1}, the classes of the model, got labels in '
                         f'{min(targets)}..{max(targets)}; give a model with as many classes as the data has')
    return torch.tensor(targets, device=logits.device)


def _sum_over_ranks(total: Tensor) -> Tensor:
    if not (dist.is_available() and dist.is_initialized()):
        return total
    total = total.to('cuda' if dist.get_backend() == 'nccl' else 'cpu', copy=True)
    dist.all_reduce(total)
    return total
