"""Attacks on a detector at the original size of its images, through a differentiable resize."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from pit_downstream.utils.protocols import Batch, Sample
from pit_downstream.utils.spec import Spec
from pit_downstream.det.annotations import get_image_region
from pit_downstream.det.predictor import DetectorPredictor


class OriginalSizePredictor(DetectorPredictor):
    """DetectorPredictor whose batches hold the raw images in [0, 1], so that attacks perturb these.

    The pipeline runs once for padding and metadata. The image is then resized from the raw image, bilinearly and
    without antialiasing, as mmdet's pipelines do by default with OpenCV, but without rounding to integer levels. Clean
    results therefore differ a little, which the name records as `at`. In the batch, a sample's image is the output of
    the pipeline, levels (3, h, w).
    """

    def __init__(self, predictor: DetectorPredictor):
        spec = Spec.parse(predictor.name)
        super().__init__(predictor.model, predictor.pipeline, seed=predictor.seed,
                         name=str(Spec.of(spec.name, **dict(spec.kwargs), at='original')))

    def collate(self, samples: Sequence[Sample], images: Tensor | None = None) -> Batch:
        seen = super().collate(samples)
        sides = [max(sample.image.shape[axis] for sample in samples) for axis in (1, 2)]
        full = torch.zeros(len(samples), 3, *sides, device=self.device)
        valid = torch.zeros(len(samples), 1, *sides, dtype=torch.bool, device=self.device)
        for place, sample in enumerate(samples):
            height, width = sample.image.shape[1:]
            full[place, :, :height, :width] = sample.image.to(self.device).float() / self._white
            valid[place, :, :height, :width] = True
        rows = zip(seen.samples, seen.images * self._white, strict=True)
        return Batch(full, valid, tuple(replace(sample, image=levels) for sample, levels in rows))

    def levels(self, image: Tensor, sample: Sample) -> Tensor:
        height, width = sample.target.network_shape
        rows, columns = get_image_region(sample.target, height, width)
        above, left = sample.target.ori_shape[:2]
        raw = image[None, :, :above, :left] * self._white
        size = rows.stop - rows.start, columns.stop - columns.start
        resized = raw if size == raw.shape[2:] else F.interpolate(raw, size=size, mode='bilinear', align_corners=False)
        made = sample.image[:, :height, :width].clone()
        made[:, rows, columns] = resized[0]
        return made
