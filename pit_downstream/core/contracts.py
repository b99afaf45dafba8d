"""What the rooms hand to each other: samples, batches, outputs, and what may be asked of an rng, predictor or metric.

Core imports the standard library alone, so a tensor is Any here; shapes and types stand in the docstrings.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

Tensor = Any  # torch.Tensor


@dataclass(frozen=True)
class Sample:
    """One image as a benchmark defines its corruption on it.

    id: what its random draws are derived from, the same in every run: 'n01440764/ILSVRC2012_val_00000293.JPEG'.
    image: uint8 (3, H, W), RGB. target: the class index of a classifier, boxes of a detector ...
    """

    id: str
    image: Tensor
    target: Any


@dataclass(frozen=True)
class Batch:
    """images: float (B, 3, H, W) in [0, 1]. valid: bool (B, 1, H, W), False on padding. samples: B of them."""

    images: Tensor
    valid: Tensor
    samples: tuple[Sample, ...]

    def part(self, rows: Sequence[int]) -> 'Batch':
        """The images `rows` names, in that order."""
        rows = list(rows)
        return Batch(self.images[rows], self.valid[rows], tuple(self.samples[row] for row in rows))


@dataclass(frozen=True)
class Outputs:
    """predictions: logits (B, K) of a classifier, one item per image of a detector.

    trace: what a traced model showed of its inside (attention.trace.Trace); None unless it was asked for.
    """

    predictions: Any
    trace: Any = None


class NonFiniteOutputs(ValueError):
    """A model returned NaN for an image. id: of the sample; condition: under which the image was shown, where known."""

    def __init__(self, id: str, condition: str = ''):
        shown = f'{id} under {condition}' if condition else id
        super().__init__(f'Outputs of the model are not finite: NaN for image {shown}. Check the weights, or measure '
                         'in float32.')
        self.id, self.condition = id, condition

    def __reduce__(self):
        return NonFiniteOutputs, (self.id, self.condition)


class Rng(Protocol):
    """Where a corruption or an attack gets its random fields: torch in production, numpy replay in parity tests.

    A shape is that of the whole field and begins with the number of images; what an image draws does not depend on the
    others. Every result is a tensor on the device of the images.
    """

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal values, float."""

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Values in [0, 1), float."""

    def poisson(self, rate: Tensor, index: Tensor | None = None) -> Tensor:
        """Counts with the means `rate` (B, ...), or with means rate[index] for a few rates (K,) and index (B, ...)."""

    def integers(self, low: int, high: int | Tensor, shape: Sequence[int]) -> Tensor:
        """Values in low..high - 1, int64. high: one for all, or one for each image (B,)."""


class Predictor(Protocol):
    """A model dressed for measuring: images in [0, 1] in, losses and predictions out; normalization is inside.

    name: its Spec text, under which records are kept.
    """

    name: str

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """The samples as network images on the device of the model."""

    def loss(self, images: Tensor, batch: Batch) -> Tensor:
        """(B,), differentiable in images; higher hurts the model."""

    def predict(self, images: Tensor, batch: Batch, *, trace: bool = False) -> Outputs:
        """Outputs for images (B, 3, H, W) in [0, 1], which may differ from batch.images (an attack changed them).

        A detector raises NonFiniteOutputs where NaN would pass for an image without objects."""


class Classifier(Predictor, Protocol):
    """A predictor that an attack may ask for logits, so that it can tell what is fooled, and try one class or another.

    rough: the logits are less precise than those of predict(), as in bfloat16; what they say is fooled is asked again.
    A predictor may also have `precision`, the torch.dtype in which logits() computes; float32 unless given.
    """

    rough: bool

    def logits(self, images: Tensor) -> Tensor:
        """(B, K), differentiable in images (B, 3, H, W) in [0, 1]."""

    def labels(self, batch: Batch) -> Tensor:
        """The true classes (B,), int64, on the device of the model."""


class Traceable(Classifier, Protocol):
    """A classifier whose attention can be watched."""

    def tracing(self) -> AbstractContextManager:
        """Entered, it gives what every pass shows (attention.trace.Trace), differentiable where the pass is."""


class Streams(Rng, Protocol):
    """An `Rng` with a stream per image, whose images can be chosen and told apart further (`streams.rng.BatchRng`)."""

    def rows(self, images: Sequence[int], tags: Sequence[Any], purpose: str, device: Any) -> Rng:
        """Fresh streams, one for each (image, tag): what a row draws depends on its image, tag and purpose alone."""


class Metric(Protocol):
    """Numbers over many batches. State stays on the device; under torch.distributed compute() sums over the ranks.

    name: of its value; where compute() gives several, of the last, so that a kept record of this name says that all are
    kept. count: on how many samples the last compute() rests, over all ranks.
    """

    name: str
    needs_trace: bool
    higher_is_better: bool
    count: int

    def reset(self) -> None:
        """Forget everything seen."""

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take one batch in."""

    def compute(self) -> Mapping[str, float]:
        """Value by metric name, e.g. {'top1_error': 0.25}; a value of one place is named 'metric@place'."""
