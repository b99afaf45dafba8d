"""Corruptions as a transform for mmdet pipelines, for training or testing."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import Spec
from pit_downstream.corruptions import corrupt_images
from pit_downstream.evaluation.corrupting import check_corruption
from pit_downstream.det.pipeline import ORDERS, pixels_to_image, image_to_pixels


@TRANSFORMS.register_module()
class PitCorrupt(BaseTransform):
    """Transform that corrupts an image, placed after the image loader.

    `dict(type='PitCorrupt', corruption='fog', severity=3)`. The result depends on (seed, img_id, corruption, severity)
    alone and equals that of the measuring tool. severity: 1..5. variant: 'hendrycks' where a corruption has it. order:
    color order of the pipeline; mmcv loads 'bgr'. Raises InputError for an unknown corruption or
    severity.
    """

    def __init__(self, corruption: str, severity: int, *, seed: int = 0, variant: str | None = None,
                 order: str = 'bgr'):
        check_corruption(Spec.of(corruption, severity=severity, variant=variant))
        if order not in ORDERS:
            raise InputError(f'order is one of {", ".join(ORDERS)}, got {order!r}')
        self.corruption, self.severity, self.seed, self.variant = corruption, severity, seed, variant
        self.order = order

    def transform(self, results: dict) -> dict:
        """Corrupt results['img']: (H, W, 3), levels 0..255 as uint8 or float. The dtype is kept."""
        pixels: np.ndarray = results['img']
        corrupted = corrupt_images(pixels_to_image(pixels, self.order)[None], self.corruption, self.severity,
                                   seed=self.seed, ids=[str(results['img_id'])], variant=self.variant)
        results['img'] = image_to_pixels(corrupted[0], self.order).astype(pixels.dtype)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(corruption={self.corruption!r}, severity={self.severity}, seed={self.seed})'
