"""mmdet's data preprocessor, which also passes the image sizes to our backbones."""

from collections.abc import Sequence

from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import MODELS
from torch import Tensor

from pit_downstream.backbones.sizes import Size, set_image_sizes


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
        if data['data_samples'] is not None:  # updated by batch augmentations
            sizes = [sample.pad_shape for sample in data['data_samples']]
        set_image_sizes(data['inputs'], _fitted(sizes, data['inputs']))
        return data


def _fitted(sizes: Sequence[Size], images: Tensor) -> list[Size]:
    """Return sizes with the largest sides equal to the batch's. mmdet rounds them down when it resizes a batch."""
    full, largest = images.shape[-2:], [max(sides) for sides in zip(*sizes)]
    return [tuple(limit if side == top else min(side, limit) for side, top, limit in zip(size, largest, full))
            for size in sizes]
