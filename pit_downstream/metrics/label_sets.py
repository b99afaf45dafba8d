"""Classification error for class subsets, coarser classes and several correct labels per image."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Batch, Outputs, Sample
from pit_downstream.utils.registry import METRICS
from pit_downstream.metrics.classification import ClassificationMetric

LabelFunction = Callable[[Sample], tuple[int, ...]]  # the correct class indices of an image; () excludes it


def predict_classes(logits: Tensor, classes: Tensor | None = None) -> Tensor:
    """Return the class of the largest logit, int64 (B,). Ties are resolved in favor of the lower index.

    logits: (B, K). classes: candidate class indices in ascending order, None for all classes.
    """
    chosen = logits if classes is None else logits[:, classes]
    places = torch.arange(chosen.shape[1], device=logits.device)
    largest = chosen == chosen.amax(1, keepdim=True)
    first = torch.where(largest, places, places[-1]).amin(1)  # the last class if the maximum is NaN
    return first if classes is None else classes[first]


def compute_label_set_errors(logits: Tensor, labels: Sequence[tuple[int, ...]],
                             classes: Tensor | None = None) -> Tensor:
    """Return whether each predicted class is not a correct label of the image, bool (B,).

    logits: (B, K). labels: B tuples of class indices in 0..K - 1. classes: see predict_classes.
    """
    right = torch.zeros(logits.shape, dtype=torch.bool)
    for row, indices in enumerate(labels):
        right[row, list(indices)] = True
    return ~right.to(logits.device).gather(1, predict_classes(logits, classes)[:, None])[:, 0]


def get_target_labels(sample: Sample) -> tuple[int, ...]:
    """Return the target of a sample as a tuple of correct class indices."""
    return sample.target if isinstance(sample.target, tuple) else (sample.target,)


@METRICS.register('label_set_error')
class LabelSetError(ClassificationMetric):
    """Fraction of images for which the predicted class among `classes` is not a correct label.

    Images without a label are excluded. The same definition covers class subsets (`classes`), coarser classes (every
    fine class of the coarse one is correct) and several labels per image.

    Args:
        name: Name of the number.
        labels: Returns the correct class indices of a sample, () to exclude it.
        classes: Candidate class indices of a prediction, None for all.
    """

    def __init__(self, name: str = 'label_set_error', *, labels: LabelFunction = get_target_labels,
                 classes: Sequence[int] | None = None):
        self.name, self.labels = name, labels
        self._classes = None if classes is None else torch.tensor(sorted(classes))

    def measure(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return 1 for an error, 0 for a correct prediction, NaN for an excluded image, float32 (B,).

        outputs.predictions: logits (B, K), K above every index in `labels` and `classes`.
        """
        labels = [self.labels(sample) for sample in batch.samples]
        rows = [row for row, indices in enumerate(labels) if indices]
        logits = outputs.predictions.float()
        errors = torch.full((len(labels),), float('nan'), device=logits.device)
        if rows:
            self._require_classes(logits, [labels[row] for row in rows])
            classes = None if self._classes is None else self._classes.to(logits.device)
            errors[rows] = compute_label_set_errors(logits[rows], [labels[row] for row in rows], classes).float()
        return {self.name: errors}

    def _require_classes(self, logits: Tensor, labels: Sequence[tuple[int, ...]]) -> None:
        highest = max(max(map(max, labels)), -1 if self._classes is None else int(self._classes[-1]))
        if highest >= logits.shape[1]:
            raise InputError(f'labels need logits of {highest + 1} classes at least, got {logits.shape[1]}. Pass a '
                             'model of the 1000 classes of ImageNet.')
