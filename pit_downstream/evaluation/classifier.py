"""A classifier wrapped for evaluation: takes images in [0, 1], normalizes them, returns logits."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Batch, Outputs, Sample
from pit_downstream.datasets.base import Preprocess

if TYPE_CHECKING:
    from pit_downstream.attention.trace import Trace

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AMP = {'bf16': torch.bfloat16, 'fp16': torch.float16}


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Set a module to evaluation mode, and restore the mode of every submodule at the end."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, is_training in modes.items():
            part.training = is_training


@dataclass(frozen=True)
class Preparation:
    """Preprocessing of a model: the view of an image, then (image - mean) / std per channel, image in [0, 1].

    Use mean 0 and std 1 for a model that normalizes its inputs itself. Raises InputError for values that are not valid
    for images in [0, 1].
    """

    view: Preprocess
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        for name, values in (('mean', self.mean), ('std', self.std)):
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise InputError(f'{name} must be three finite numbers, got {tuple(values)}. Pass one per channel.')
        if max(self.mean) > 1:
            raise InputError(f'mean is for images in [0, 1], got {tuple(self.mean)}. Divide mean and std by 255.')
        if min(self.std) <= 0:
            raise InputError(f'std must be positive, got {tuple(self.std)}. For no normalization use mean 0 and std 1.')

    def __str__(self) -> str:
        return (f'preprocessing: {self.view}, {self.normalization} (change it with --preprocess, --img-size, --mean, '
                '--std)')

    @property
    def normalization(self) -> str:
        mean, std = (' '.join(f'{value:.4g}' for value in values) for values in (self.mean, self.std))
        return f'mean {mean}, std {std}'

    @property
    def words(self) -> dict[str, float | tuple[float, ...]]:
        """Mean and std for the model's name, {} for ImageNet's. The dataset name has the view."""
        if (self.mean, self.std) == (IMAGENET_MEAN, IMAGENET_STD):
            return {}
        return {name: values[0] if len(set(values)) == 1 else values
                for name, values in (('mean', self.mean), ('std', self.std))}


IMAGENET = Preparation(Preprocess(224, 256, 'bilinear'))  # hendrycks/robustness: ImageNet-C/test.py, make_imagenet_c.py


class ClassifierPredictor:
    """A predictor from a module that maps normalized images (B, 3, H, W) to logits (B, K), in evaluation mode.

    The device is the model's.

    Args:
        name: Spec text under which records are stored.
        amp: 'bf16' or 'fp16' for autocast.
        search: As `amp`, but only for logits(), in which attacks search. Results stay in float32, and `rough` makes
            attacks verify successes with predict() (core.contracts.Classifier).
        compiled: Run the model through torch.compile.
        class_names: Class names in output order, None if unknown.
    """

    def __init__(self, model: nn.Module, preparation: Preparation, *, name: str, amp: str | None = None,
                 search: str | None = None, compiled: bool = False, class_names: tuple[str, ...] | None = None):
        wrong = [kind for kind in (amp, search) if kind not in (None, *AMP)]
        if wrong:
            raise InputError(f'amp is one of {", ".join(AMP)}, got {wrong[0]!r}')
        self.model, self.preparation, self.name = model.eval(), preparation, name
        self.class_names = class_names
        self.has_given_name = True  # False for a module without a name, whose results cannot be stored
        self.is_module = False  # whether the caller's module was wrapped
        self._num_classes: int | None = None  # determined on first use
        self.device = next((tensor.device for tensor in model.parameters()), torch.device('cpu'))
        self._forward = torch.compile(model) if compiled else model
        self._amp = AMP[amp] if amp else None
        self._search, self.rough = AMP[search] if search else self._amp, search is not None
        self.precision = self._search or torch.float32  # of logits()
        with torch.inference_mode(False):  # gradients pass through the normalization
            self._mean, self._std = (torch.tensor(values, device=self.device).view(3, 1, 1)
                                     for values in (preparation.mean, preparation.std))

    @property
    def view(self) -> Preprocess:
        return self.preparation.view

    def collate(self, samples: Sequence[Sample], images: Tensor | None = None) -> Batch:
        if images is None:
            images = torch.stack([sample.image for sample in samples])
        images = images.to(self.device, non_blocking=True).float() / 255
        valid = torch.ones((), dtype=torch.bool, device=self.device).expand(len(images), 1, *images.shape[-2:])
        return Batch(images, valid, tuple(samples))

    def loss(self, images: Tensor, batch: Batch) -> Tensor:
        """Return the cross-entropy of the targets (B,), differentiable in `images`."""
        return nn.functional.cross_entropy(self.logits(images), self.labels(batch), reduction='none')

    def labels(self, batch: Batch) -> Tensor:
        """Return the targets (B,), int64."""
        return torch.tensor([sample.target for sample in batch.samples], device=self.device)

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (B, K), float32, differentiable in images (B, 3, H, W) in [0, 1]."""
        return self._logits(images, self._search)

    @torch.no_grad()
    def predict(self, images: Tensor, batch: Batch, *, trace: bool = False) -> Outputs:
        """Return logits (B, K), float32, and with `trace` the attention trace of the model."""
        if not trace:
            return Outputs(self._logits(images, self._amp))
        from pit_downstream.attention.trace import trace_attention
        with trace_attention(self.model) as seen:
            return Outputs(self._logits(images, self._amp, self.model), seen)

    def _logits(self, images: Tensor, amp: torch.dtype | None, forward: nn.Module | None = None) -> Tensor:
        try:
            with torch.autocast(self.device.type, amp, enabled=amp is not None):
                logits = (forward or self._forward)((images - self._mean) / self._std)
        except AssertionError as error:  # raised by timm's fixed-size models for other sizes
            raise InputError(f'expected images that {self.name} takes, got {images.shape[-2]} x {images.shape[-1]}: '
                             f'{error}; set --img-size, or another --preprocess than none') from error
        return logits.float()

    def classes(self) -> int:
        """Return the number of classes, from one black image of the model's size (96 pixels for a native view).

        The model runs once. Raises InputError if it does not accept such images, or returns features in place of
        logits.
        """
        if self._num_classes is not None:
            return self._num_classes
        if getattr(self.model, 'num_classes', None) == 0:  # timm's convention for a network without a head
            raise InputError(f'expected a classifier, got the features of {self.name}: num_classes=0. Give the '
                             'number of classes, or leave it out')
        side = self.view.size or 96
        normalized = (torch.zeros(1, 3, side, side, device=self.device) - self._mean) / self._std
        try:
            with torch.no_grad():
                logits = self.model(normalized)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise InputError(f'expected a classifier of {side} x {side} images, got an error of {self.name}: '
                             f'{str(error).splitlines()[0]}; check --model, --img-size and --preprocess') from error
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            got = f'shape {tuple(logits.shape)}' if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(f'expected logits (B, classes) from {self.name}, got {got}; give a classifier')
        self._num_classes = logits.shape[1]
        return self._num_classes

    @contextmanager
    def tracing(self) -> Iterator['Trace']:
        """Trace the attention of every pass in the block, differentiable if the pass is.

        A compiled model runs uncompiled in the block. Raises InputError for a model that cannot be traced.
        """
        from pit_downstream.attention.trace import trace_attention
        forward, self._forward = self._forward, self.model
        try:
            with trace_attention(self.model) as seen:
                yield seen
        finally:
            self._forward = forward
