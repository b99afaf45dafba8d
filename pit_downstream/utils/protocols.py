"""Interfaces between packages: samples, batches, outputs, and protocols for rngs, predictors and metrics.

The annotations name torch's types, but the module does not import torch. Shapes and dtypes are in the docstrings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pit_downstream.utils.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One image, in the form for which a benchmark defines its corruptions.

    `id` seeds the random draws and is the same in every run: 'n01440764/ILSVRC2012_val_00000293.JPEG'. `image` is uint8
    (3, H, W), RGB. `target` is a class index for a classifier, boxes for a detector.
    """

    id: str
    image: Tensor
    target: Any


LabelFunction = Callable[[Sample], tuple[int, ...]]  # returns the correct class indices of an image, () to exclude it


@dataclass(frozen=True)
class Batch:
    """A batch of network inputs.

    `images` is float (B, 3, H, W) in [0, 1]. `valid` is bool (B, 1, H, W), False on padding. `samples` has B entries.
    """

    images: Tensor
    valid: Tensor
    samples: tuple[Sample, ...]

    def part(self, rows: Sequence[int]) -> Batch:
        """Return the images with the indices `rows`, in that order."""
        rows = list(rows)
        return Batch(self.images[rows], self.valid[rows], tuple(self.samples[row] for row in rows))


@dataclass(frozen=True)
class Outputs:
    """Outputs of a predictor for one batch.

    `predictions` are logits (B, K) for a classifier, one item per image for a detector. `trace` is the attention trace
    (attention.trace.Trace), None unless requested.
    """

    predictions: Any
    trace: Any = None


class NonFiniteOutputs(InputError):
    """Error for NaN outputs of a model. `id` is the sample's, `condition` the measurement condition if known."""

    def __init__(self, id: str, condition: str = ''):
        shown = f'{id} under {condition}' if condition else id
        super().__init__(f'Outputs of the model are not finite: NaN for image {shown}. Check the weights, or measure '
                         'in float32.')
        self.id, self.condition = id, condition

    def __reduce__(self):
        return NonFiniteOutputs, (self.id, self.condition)


class Rng(Protocol):
    """Source of the random fields of corruptions and attacks: torch in production, numpy replay in parity tests.

    A shape covers the whole field and begins with the number of images. The draws of an image do not depend on the
    other images. Results are tensors on the device of the images.
    """

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Return standard normal values, float."""

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Return uniform values in [0, 1), float."""

    def poisson(self, rate: Tensor, index: Tensor | None = None) -> Tensor:
        """Return counts with the means `rate` (B, ...), or rate[index] for a few rates (K,) and `index` (B, ...)."""

    def integers(self, low: int, high: int | Tensor, shape: Sequence[int]) -> Tensor:
        """Return int64 values in low..high - 1. `high` is one number for all images, or one per image (B,)."""


class Predictor(Protocol):
    """A model wrapped for evaluation: takes images in [0, 1], normalizes them, returns losses and predictions.

    `name` is the model's Spec text, under which its records are stored. `device` is the device of the model.
    """

    name: str
    device: torch.device

    def collate(self, samples: Sequence[Sample], images: Tensor | None = None) -> Batch:
        """Return the samples as a batch of network inputs on the model's device.

        images: uint8 (B, 3, H, W), those of the samples if they are stacked already.
        """

    def loss(self, images: Tensor, batch: Batch) -> Tensor:
        """Return the loss per image (B,), differentiable in `images`. A higher loss is worse for the model."""

    def predict(self, images: Tensor, batch: Batch, *, trace: bool = False) -> Outputs:
        """Return outputs for images (B, 3, H, W) in [0, 1], which differ from batch.images after an attack.

        A detector raises NonFiniteOutputs where NaN would pass for an image without objects.
        """


class Classifier(Predictor, Protocol):
    """A predictor with logits, which attacks use to detect misclassified images and to target single classes.

    `rough` means that the logits are less precise than those of predict(), as in bfloat16, so attacks verify each
    success with predict(). An optional attribute `precision` is the torch.dtype in which logits() computes, float32 by
    default.
    """

    rough: bool

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (B, K), differentiable in images (B, 3, H, W) in [0, 1]."""

    def labels(self, batch: Batch) -> Tensor:
        """Return the ground-truth classes (B,), int64, on the model's device."""


class Instances(tuple):
    """Objects of one image, annotated or detected.

    Each is a dict with bbox (left, top, right, bottom) in pixels of the raw image, bbox_label (class index),
    ignore_flag and, if available, mask (polygons or RLE).
    """

    def __new__(cls, instances: Iterable[dict[str, Any]] = ()):
        return super().__new__(cls, instances)

    def __deepcopy__(self, memo: dict) -> Instances:
        return self  # mmengine copies data samples many times


@dataclass(frozen=True)
class Detections:
    """Predictions of a detector for one image, on the CPU.

    `boxes` is float (N, 4), left, top, right, bottom in pixels of the raw image. `labels` is int64 (N,), `scores` float
    (N,) in [0, 1].
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor


class Detector(Predictor, Protocol):
    """A predictor of boxes. Attacks on detectors use only this protocol, and no detection library.

    `loss_types` are the names that loss() accepts: 'all' losses, those of classes ('cls') and of boxes ('box'), and in
    detectors with proposals those of the first stage ('rpn') and the rest ('roi').
    """

    loss_types: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of object classes, without the background. Raises InputError if the model does not define it."""

    def loss(self, images: Tensor, batch: Batch, loss_type: str = 'all',
             ground_truth: Sequence[Instances] | None = None) -> Tensor:
        """Return the loss of one type per image (B,), differentiable in images (B, 3, H, W) in [0, 1].

        ground_truth: objects of each image, by default those of its annotations.
        """

    def detect(self, images: Tensor, batch: Batch, *, min_score: float) -> list[Instances]:
        """Return the detections of each image with a score of at least `min_score`, as ground truth for loss()."""

    def detect_candidates(self, images: Tensor, batch: Batch) -> list[Detections]:
        """Return the detections of each image without the model's score thresholds, in its order."""

    def make_target_logits(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        """Return a function from images (1, 3, H, W) to the logits (N, K) of all candidates for detections.

        batch: of one image. Proposals are computed once, from batch.images, so that row i is the same candidate in
        every call. K is the number of classes, or one more with a last column for the background. The function is
        differentiable. Raises InputError for a detector without such candidates.
        """


class Traceable(Classifier, Protocol):
    """A classifier with traceable attention."""

    def tracing(self) -> AbstractContextManager:
        """Return a context manager that yields the trace of each pass (attention.trace.Trace).

        The trace is differentiable if the pass is.
        """


class Streams(Rng, Protocol):
    """An `Rng` with one stream per image and further substreams (`streams.rng.BatchRng`)."""

    def rows(self, images: Sequence[int], tags: Sequence[Any], purpose: str, device: Any) -> Rng:
        """Return fresh streams, one per (image, tag). A row's draws depend on its image, tag and purpose alone."""


@dataclass(frozen=True)
class MetricValue:
    """A number of a metric, over `count` images. layer, class_name: '' for metrics without them."""

    metric: str
    value: float
    count: int
    layer: str = ''
    class_name: str = ''


class Metric(Protocol):
    """A metric: per-image values, and numbers computed from those of all images.

    Attributes:
        name: Name of the metric.
        value_names: Names of per-image values that are stored for every evaluated image.
        record_name: Name of the number that is recorded last: if it is recorded, all numbers are.
        needs_trace: Whether measure() needs the attention trace.
    """

    name: str
    needs_trace: bool

    @property
    def value_names(self) -> tuple[str, ...]: ...

    @property
    def record_name(self) -> str: ...

    def measure(self, outputs: Outputs, batch: Batch) -> Mapping[str, Any]:
        """Return per-image values by name: tensors (B,) on any device, or lists of B items with arrays in them."""

    def compute(self, outcomes: Any, samples: Any) -> Sequence[MetricValue]:
        """Return the numbers. outcomes: results.outcomes.Outcomes. samples: the dataset, for ids and targets."""
