"""Batches of bytes -> what the network sees: normalized, and in training with parts erased and images mixed."""

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS
from timm.data import Mixup
from timm.data.mixup import mixup_target
from timm.data.random_erasing import RandomErasing
from torch import Tensor


@MODELS.register_module()
class ClassifierPreprocessor(BaseDataPreprocessor):
    """{'images': uint8 (B, 3, H, W), 'labels': (B,)} -> {'images': normalized float, 'targets'}, on the device.

    mean, std: of the pixels in [0, 1], per channel. In training `targets` are distributions (B, num_classes), smoothed
    and mixed, in evaluation class indices (B,).
    smoothing: share of the target that is spread over all classes. erasing: arguments of timm's RandomErasing.
    mixing: arguments of timm's Mixup (mixup_alpha, cutmix_alpha, prob, switch_prob, mode), for even batches.
    """

    def __init__(self, *, mean: tuple[float, ...], std: tuple[float, ...], num_classes: int, smoothing: float = 0.0,
                 erasing: dict | None = None, mixing: dict | None = None):
        super().__init__(non_blocking=True)
        self.num_classes, self.smoothing, self.erasing = num_classes, smoothing, erasing
        self.mix = Mixup(label_smoothing=smoothing, num_classes=num_classes, **mixing) if mixing else None
        for name, values in (('mean', mean), ('std', std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict[str, Tensor]:
        data = self.cast_data(data)
        images, labels = (data['images'].float() / 255 - self.mean) / self.std, data['labels']
        if not training:
            return {'images': images, 'targets': labels}
        if self.erasing:
            images = RandomErasing(**self.erasing, device=images.device)(images)  # noise of a normalized image
        if self.mix:
            images, targets = self.mix(images, labels)
        else:
            targets = mixup_target(labels, self.num_classes, smoothing=self.smoothing)
        return {'images': images, 'targets': targets}

    def in_unit_range(self, images: Tensor) -> Tensor:
        """Normalized images (B, 3, H, W) back in [0, 1], as predictors take them."""
        return images * self.std + self.mean
