"""A config's test pipeline, cut behind the transform that loads the image: whatever stands after it, stays as it is."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile, Normalize
from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.dataset import Compose
from torch import Tensor

from pit_downstream.det.data import LoadImageOrSkip, class_of, require_size

ORDERS = ('bgr', 'rgb')


def as_image(pixels: np.ndarray, order: str) -> Tensor:
    """Pixels (H, W, 3) in `order` with whole levels 0..255 as an image: uint8 (3, H, W), RGB."""
    turned = pixels[..., ::-1] if order == 'bgr' else pixels
    return torch.from_numpy(np.ascontiguousarray(turned.transpose(2, 0, 1), dtype=np.uint8))


def as_pixels(image: Tensor, order: str) -> np.ndarray:
    """An image (3, H, W), RGB, on any device as pixels (H, W, 3) in `order`."""
    turned = image.flip(0) if order == 'bgr' else image
    return turned.permute(1, 2, 0).contiguous().cpu().numpy()


class TestPipeline:
    """The transforms of a test pipeline in two halves: `read` ends with the loader, `pack` is all that follows.

    transforms: as in a config. order: of the loader's colors, 'bgr' unless it has a `channel_order` that says else.
    backend_args: of the loader, where image files are.
    """

    __test__ = False  # pytest takes it for a test

    def __init__(self, transforms: Sequence[Mapping]):
        built = [TRANSFORMS.build(_checked(transform)) for transform in transforms]
        places = [place for place, transform in enumerate(built) if isinstance(transform, LoadImageFromFile)]
        if len(places) != 1:
            names = ', '.join(type(transform).__name__ for transform in built)
            raise ValueError(f'expected one LoadImageFromFile, or a class below it, in the test pipeline, got {names}')
        if any(isinstance(transform, Normalize) for transform in built):
            raise ValueError('expected images to be normalized by model.data_preprocessor, got Normalize in the test '
                             'pipeline; move its numbers there')
        cut = places[0] + 1
        if isinstance(built[places[0]], LoadImageOrSkip):
            built[places[0]].on_broken = 'raise'  # samples that are unreadable are counted
        self._before, self._after = Compose(built[:cut]), Compose(built[cut:])
        self._floats = built[places[0]].to_float32
        self.order = getattr(built[places[0]], 'channel_order', 'bgr')
        self.backend_args = getattr(built[places[0]], 'backend_args', None)

    def read(self, info: dict) -> tuple[Tensor, dict]:
        """The raw image, uint8 (3, H, W) in RGB at full size, and what else is known of it, for `pack`.

        info: what a mmdet dataset knows of one image. Raises OSError or ValueError for a file that is no image.
        """
        known = self._before(info)
        require_size(known, known['img'].shape)
        return as_image(known.pop('img'), self.order), known

    def pack(self, image: Tensor, known: dict) -> tuple[Tensor, DetDataSample]:
        """The network image (3, h, w) of an image that stands in place of the one read, levels 0..255 in RGB, and
        what mmdet's model wants to know about it. `known` is left as it is."""
        pixels = as_pixels(image, self.order)
        packed = self._after({**known, 'img': pixels.astype(np.float32) if self._floats else pixels})
        inputs = packed['inputs']
        return inputs.flip(0) if self.order == 'bgr' else inputs, packed['data_samples']


def _checked(transform: Mapping) -> dict:
    """The transform as a dict; mmcv's image loader is replaced by one that finds broken files."""
    plain = class_of(transform, TRANSFORMS) is LoadImageFromFile
    return {**transform, 'type': 'LoadImageOrSkip'} if plain else dict(transform)
