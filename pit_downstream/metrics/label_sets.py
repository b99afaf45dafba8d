"""The error of a classifier where the classes are a part of its own, or coarser, or where several answers are right."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pit_downstream.core.contracts import Batch, Outputs, Sample
from pit_downstream.core.registry import METRICS
from pit_downstream.metrics.classification import ClassificationMetric

Answers = Callable[[Sample], tuple[int, ...]]  # the class indices that are right for an image; () leaves it out


def predicted_classes(logits: Tensor, classes: Tensor | None = None) -> Tensor:
    """int64 (B,): the class of the largest logit, the first one of equals.

    logits: (B, K). classes: ascending class indices among which to choose; None for all of them.
    """
    chosen = logits if classes is None else logits[:, classes]
    places = torch.arange(chosen.shape[1], device=logits.device)
    largest = chosen == chosen.amax(1, keepdim=True)
    first = torch.where(largest, places, places[-1]).amin(1)  # the last one where a NaN hides the largest
    return first if classes is None else classes[first]


def answer_errors(logits: Tensor, answers: Sequence[tuple[int, ...]], classes: Tensor | None = None) -> Tensor:
    """bool (B,): the predicted class is none of the image's right answers.

    logits: (B, K). answers: B tuples of class indices in 0..K - 1. classes: as for predicted_classes.
    """
    right = torch.zeros(logits.shape, dtype=torch.bool)
    for row, indices in enumerate(answers):
        right[row, list(indices)] = True
    return ~right.to(logits.device).gather(1, predicted_classes(logits, classes)[:, None])[:, 0]


def target_answers(sample: Sample) -> tuple[int, ...]:
    """The target as answers: one class index, or a tuple of those that are right."""
    return sample.target if isinstance(sample.target, tuple) else (sample.target,)


@METRICS.register('answer_error')
class AnswerError(ClassificationMetric):
    """The share of images for which the best of `classes` is none of the right answers.

    Images without an answer are left out, and the count says how many were not. One definition serves datasets of
    some of the classes (`classes`), of coarser classes (every class that belongs to one is right) and of several
    labels per image.
    name: of its value. answers: see Answers.
    """

    def __init__(self, name: str = 'answer_error', *, answers: Answers = target_answers,
                 classes: Sequence[int] | None = None):
        self.name, self.answers = name, answers
        self._classes = None if classes is None else torch.tensor(sorted(classes))
        super().__init__()

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """outputs.predictions: logits (B, K) with every class that `answers` and `classes` name."""
        answers = [self.answers(sample) for sample in batch.samples]
        rows = [row for row, indices in enumerate(answers) if indices]
        if not rows:
            return
        logits, answers = outputs.predictions[rows].float(), [answers[row] for row in rows]
        self._require_classes(logits, answers)
        classes = None if self._classes is None else self._classes.to(logits.device)
        self.add(answer_errors(logits, answers, classes).sum(), logits)

    def value(self, sums: Tensor) -> float:
        return sums.item() / self.count

    def _require_classes(self, logits: Tensor, answers: Sequence[tuple[int, ...]]) -> None:
        highest = max(max(map(max, answers)), -1 if self._classes is None else int(self._classes[-1]))
        if highest >= logits.shape[1]:
            raise ValueError(f'expected logits of {highest + 1} classes at least, got {logits.shape[1]}; give a model '
                             'of the 1000 classes of ImageNet')
