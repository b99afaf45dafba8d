"""mmdet's data preprocessor, which also provides the image sizes to the backbones of this package."""

from collections.abc import MutableMapping

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import MODELS
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from pit_downstream.backbones.multi_scale import Size

# mmdet passes only the tensor of images from the preprocessor to the backbone, so the sizes are found by that tensor.
# An entry is removed with its tensor.
_image_sizes: MutableMapping[Tensor, tuple[Size, ...]] = WeakTensorKeyDictionary()


@torch.compiler.disable
def get_image_sizes(images: Tensor) -> tuple[Size, ...] | None:
    """Return the sizes that PitDataPreprocessor found for this batch.

    Returns None for any other tensor, also for a copy of the batch or the result of an operation on it.
    """
    return _image_sizes.get(images)


@MODELS.register_module()
class PitDataPreprocessor(DetDataPreprocessor):
    """Data preprocessor that makes features independent of the other images in the batch.

    `data_preprocessor=dict(type='PitDataPreprocessor', ...)`. PiT and DeepViT process every image as if it were alone,
    at its `pad_shape`: its size rounded up to `pad_size_divisor`. Other backbones are unaffected. All arguments are
    DetDataPreprocessor's.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        sizes = self._get_pad_shape(data)
        data = super().forward(data, training)
        images, samples = data['inputs'], data['data_samples']
        if samples is not None:  # updated by batch augmentations
            sizes = [sample.pad_shape for sample in samples]
        # mmdet rounds sizes down when it resizes a batch: the largest sides are those of the batch.
        full, largest = images.shape[-2:], [max(sides) for sides in zip(*sizes)]
        _image_sizes[images] = tuple(
            tuple(limit if side == top else min(int(side), limit) for side, top, limit in zip(size, largest, full))
            for size in sizes)
        return data
