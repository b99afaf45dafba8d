"""Dataset objects as samples: sequences of (image, label), such as the datasets of torchvision."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image

from pit_downstream.datasets.base import Preprocess, UnreadableImage, convert_depth
from pit_downstream.results.condition import Condition
from pit_downstream.utils.digests import DIGITS
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Sample
from pit_downstream.utils.spec import Spec


class ObjectSamples:
    """Samples of a dataset object, whose items are (image, label) or, without labels, images.

    An image is a PIL image, a uint8 array (H, W, 3) or a uint8 tensor (3, H, W), in RGB. The name has a digest of all
    samples, for which each is read once.

    Args:
        dataset: The object. Its attribute `name`, if any, is its name in records.
        view: Preprocessing of the images.
        is_labeled: Items are (image, label).
        indices: Indices of the samples to use, all by default.
    """

    def __init__(self, dataset: Any, *, view: Preprocess, is_labeled: bool = True,
                 indices: Sequence[int] | None = None):
        if not hasattr(dataset, '__len__') or not hasattr(dataset, '__getitem__'):
            raise InputError(f'data must be a folder or a dataset with a length and items (image, label), got '
                             f'{type(dataset).__name__}. Pass a map-style dataset.')
        self.dataset, self.view, self.is_labeled = dataset, view, is_labeled
        self.indices = range(len(dataset)) if indices is None else indices
        if not len(self.indices):
            raise InputError(f'the dataset has no samples: {type(dataset).__name__}. Pass one with images.')
        self.has_given_name = isinstance(getattr(dataset, 'name', None), str)
        self.ids = [str(index) for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        image, target = self._read(index)
        try:
            return Sample(self.ids[index], self.view(image), target)
        except ValueError as error:
            raise UnreadableImage(self.ids[index], f'{error}') from error

    def at(self, condition: Condition) -> tuple['ObjectSamples', Condition]:
        return self, condition

    def take(self, limit: int) -> 'ObjectSamples':
        """Return `limit` samples, evenly spaced."""
        if not 1 <= limit <= len(self):
            raise InputError(f'limit must be in 1..{len(self)}, the number of images, got {limit}. Change --limit.')
        return ObjectSamples(self.dataset, view=self.view, is_labeled=self.is_labeled,
                             indices=[self.indices[index * len(self) // limit] for index in range(limit)])

    @property
    def targets(self) -> list[int]:
        """Labels of all samples."""
        return self._content[0]

    @cached_property
    def name(self) -> str:
        """Spec text for records, with the number of images, the view and a digest of all samples."""
        given = getattr(self.dataset, 'name', None) if self.has_given_name else type(self.dataset).__name__
        return str(Spec.of('dataset', root=given, images=len(self), **self.view.words, files=self._content[1]))

    @cached_property
    def _content(self) -> tuple[list[int], str]:
        """Return the labels and the digest of all samples."""
        targets, digest = [], hashlib.sha256()
        for index in range(len(self)):
            image, target = self._read(index)
            targets.append(target)
            digest.update(f'{image.size} {target} '.encode() + image.tobytes())
            if index == 0 and self._read(0)[0].tobytes() != image.tobytes():
                raise InputError(f'the dataset {type(self.dataset).__name__} returns other pixels each time it is '
                                 'read. Leave random transforms out.')
        return targets, digest.hexdigest()[:DIGITS]

    def _read(self, index: int) -> tuple[Image.Image, int]:
        item = self.dataset[self.indices[index]]
        image, target = item if self.is_labeled else (item[0] if isinstance(item, (tuple, list)) else item, 0)
        return _convert_image(image, self.ids[index]), int(target)


def _convert_image(image: Any, id: str) -> Image.Image:
    if isinstance(image, torch.Tensor) and image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] == 3:
        image = image.permute(1, 2, 0).cpu().numpy()
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        what = f'{getattr(image, "dtype", type(image).__name__)} {tuple(getattr(image, "shape", ()))}'
        raise InputError(f'sample {id} must be a PIL image or uint8 pixels before normalization, got {what}. Leave '
                         'ToTensor and Normalize out of the transform of the dataset.')
    return convert_depth(image).convert('RGB')
