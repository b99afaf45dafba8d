"""Test pipeline of a config, split after the transform that loads the image. The later transforms are unchanged."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile, Normalize
from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.dataset import Compose
from torch import Tensor

from pit_downstream.det.data_checks import LoadImageOrSkip, resolve_class, require_size
from pit_downstream.utils.errors import InputError

ORDERS = ('bgr', 'rgb')


def pixels_to_image(pixels: np.ndarray, order: str) -> Tensor:
    """Convert pixels (H, W, 3) in `order` with integer levels 0..255 to an image: uint8 (3, H, W), RGB."""
    turned = pixels[..., ::-1] if order == 'bgr' else pixels
    return torch.from_numpy(np.ascontiguousarray(turned.transpose(2, 0, 1), dtype=np.uint8))


def image_to_pixels(image: Tensor, order: str) -> np.ndarray:
    """Convert an image (3, H, W), RGB, on any device to pixels (H, W, 3) in `order`."""
    turned = image.flip(0) if order == 'bgr' else image
    return turned.permute(1, 2, 0).contiguous().cpu().numpy()


class TestPipeline:
    """Transforms of a test pipeline in two halves: `read` ends with the loader, `pack` applies the rest.

    transforms: as in a config. order: color order of the loader, its `channel_order` or 'bgr'.
    backend_args: file backend of the loader.
    """

    __test__ = False  # not a pytest class

    def __init__(self, transforms: Sequence[Mapping]):
        built = [TRANSFORMS.build(_replace_loader(transform)) for transform in transforms]
        places = [place for place, transform in enumerate(built) if isinstance(transform, LoadImageFromFile)]
        if len(places) != 1:
            names = ', '.join(type(transform).__name__ for transform in built)
            raise InputError(f'expected one LoadImageFromFile, or a class below it, in the test pipeline, got {names}')
        if any(isinstance(transform, Normalize) for transform in built):
            raise InputError('expected images to be normalized by model.data_preprocessor, got Normalize in the test '
                             'pipeline; move its numbers there')
        cut = places[0] + 1
        if isinstance(built[places[0]], LoadImageOrSkip):
            built[places[0]].on_broken = 'raise'  # the caller counts unreadable samples
        self._before, self._after = Compose(built[:cut]), Compose(built[cut:])
        self._floats = built[places[0]].to_float32
        self.order = getattr(built[places[0]], 'channel_order', 'bgr')
        self.backend_args = getattr(built[places[0]], 'backend_args', None)

    def read(self, info: dict) -> tuple[Tensor, dict]:
        """Return the raw image, uint8 (3, H, W) in RGB at full size, and the other results of the loader, for `pack`.

        info: data of one image from a mmdet dataset. Raises OSError or ValueError for a file that is no image.
        """
        known = self._before(info)
        require_size(known, known['img'].shape)
        return pixels_to_image(known.pop('img'), self.order), known

    def pack(self, image: Tensor, known: dict) -> tuple[Tensor, DetDataSample]:
        """Return the network image (3, h, w), levels 0..255 in RGB, and the data sample for mmdet's model.

        image: replaces the image that was read. `known` is not modified.
        """
        pixels = image_to_pixels(image, self.order)
        packed = self._after({**known, 'img': pixels.astype(np.float32) if self._floats else pixels})
        inputs = packed['inputs']
        return inputs.flip(0) if self.order == 'bgr' else inputs, packed['data_samples']


def _replace_loader(transform: Mapping) -> dict:
    """Return the transform as a dict, with mmcv's image loader replaced by one that detects broken files."""
    plain = resolve_class(transform, TRANSFORMS) is LoadImageFromFile
    return {**transform, 'type': 'LoadImageOrSkip'} if plain else dict(transform)
