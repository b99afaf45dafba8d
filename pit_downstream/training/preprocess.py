"""Data preprocessor of classifiers: normalization, and in training random erasing, mixup and cutmix."""

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS
from timm.data import Mixup
from timm.data.mixup import mixup_target
from timm.data.random_erasing import RandomErasing
from torch import Tensor


@MODELS.register_module()
class ClassifierPreprocessor(BaseDataPreprocessor):
    """Batch preprocessing on the device: normalization, erasing, mixing and label smoothing.

    It maps {'images': uint8 (B, 3, H, W), 'labels': (B,)} to {'images': normalized float, 'targets'}. In training
    `targets` are smoothed and mixed distributions (B, num_classes), in evaluation class indices (B,).

    Args:
        mean, std: Of the pixels in [0, 1], per channel.
        smoothing: Share of the target that is spread over all classes.
        erasing: Arguments of timm's RandomErasing.
        mixing: Arguments of timm's Mixup (mixup_alpha, cutmix_alpha, prob, switch_prob, mode), for even batches.
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
            images = RandomErasing(**self.erasing, device=images.device)(images)  # fills with normalized noise
        if self.mix:
            images, targets = self.mix(images, labels)
        else:
            targets = mixup_target(labels, self.num_classes, smoothing=self.smoothing)
        return {'images': images, 'targets': targets}

    def convert_to_unit_range(self, images: Tensor) -> Tensor:
        """Convert normalized images (B, 3, H, W) back to [0, 1], the input range of predictors."""
        return images * self.std + self.mean
