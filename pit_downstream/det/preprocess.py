"""mmdet's data preprocessor, which also tells our backbones how large each image is."""

from collections.abc import Sequence

from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import MODELS
from torch import Tensor

from pit_downstream.backbones.sizes import Size, set_image_sizes


@MODELS.register_module()
class PitDataPreprocessor(DetDataPreprocessor):
    """`data_preprocessor=dict(type='PitDataPreprocessor', ...)`: then no feature depends on what else is in the batch.

    PiT and DeepViT run every image as if it were alone, at its `pad_shape`: its own size, rounded up to
    `pad_size_divisor`. Other backbones see no difference. All arguments are DetDataPreprocessor's.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        sizes = self._get_pad_shape(data)
        data = super().forward(data, training)
        if data['data_samples'] is not None:  # augmentations of the whole batch have changed them there
            sizes = [sample.pad_shape for sample in data['data_samples']]
        set_image_sizes(data['inputs'], _fitted(sizes, data['inputs']))
        return data


def _fitted(sizes: Sequence[Size], images: Tensor) -> list[Size]:
    """The same with the largest sides as long as the batch's: where a batch is resized, mmdet rounds them down."""
    full, largest = images.shape[-2:], [max(sides) for sides in zip(*sizes)]
    return [tuple(limit if side == top else min(side, limit) for side, top, limit in zip(size, largest, full))
            for size in sizes]
