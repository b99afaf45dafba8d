"""TOG: attacks on a detector's own predictions, without annotations (Chow et al. 2020, arXiv 2004.04320)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torchvision.ops import box_iou

from pit_downstream.attacks.base import check_detector
from pit_downstream.attacks.gradient import PGD
from pit_downstream.attacks.objective import LossEvaluation, LossObjective
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Detections, Instances
from pit_downstream.utils.registry import ATTACKS

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Batch, Detector, Predictor, Streams

MIN_IOU = 0.5  # of two boxes for one object, the lowest in COCO's and VOC's AP
# mode -> (loss type, sign of the step along its gradient)
MODES = {'untargeted': ('all', 1), 'vanishing': ('cls', -1), 'fabrication': ('cls', 1), 'mislabeling_ml': ('all', -1),
         'mislabeling_ll': ('all', -1)}


@ATTACKS.register('tog', source='Chow et al. 2020, arXiv 2004.04320; git-disl/TOG', of='detectors')
@dataclass(frozen=True, kw_only=True)
class TOG(PGD):
    """PGD that changes the detections on the clean image with a score of `confidence` or more.

    mode: 'untargeted' increases the losses with these detections as objects. 'vanishing' decreases the score loss of an
    image without objects, 'fabrication' increases it. 'mislabeling_ml' and 'mislabeling_ll' decrease the losses for
    the same boxes with other labels: for each detection the most likely other class, or the least likely (the first of
    equal ones). The likelihood of a class is the best score with which the detector, without its threshold, predicts it
    at IoU >= 0.5. It is 0 without such a prediction.
    step: default epsilon / 4, which is the original's 2/255 at its epsilon of 8/255.
    """

    steps: int = 10  # this and all other defaults: git-disl/TOG, tog/attacks.py
    mode: str = 'untargeted'
    confidence: float = 0.3  # score threshold of mmdet's demo

    def __post_init__(self):
        super().__post_init__()
        if self.mode not in MODES:
            raise InputError(f'mode is one of {", ".join(MODES)}, got {self.mode!r}')
        if not 0 <= self.confidence <= 1:
            raise InputError(f'confidence is 0..1, got {self.confidence}')

    @property
    def step_size(self) -> float:
        return self.threat.epsilon / 4 if self.step is None else self.step

    def run(self, predictor: 'Predictor', batch: 'Batch', rng: 'Streams') -> Tensor:
        detector = check_detector(predictor, 'tog')
        loss_type, sign = MODES[self.mode]
        objective = TargetedLoss(detector, batch, loss_type, self._get_ground_truth(detector, batch), sign)
        return self.run_search(objective, batch.images, rng)[0]

    def _get_ground_truth(self, detector: 'Detector', batch: 'Batch') -> list[Instances]:
        """Return the objects for the losses of each image."""
        if self.mode in ('vanishing', 'fabrication'):
            return [Instances()] * len(batch.images)
        detections = detector.detect(batch.images, batch, min_score=self.confidence)
        if self.mode == 'untargeted':
            return detections
        candidates = detector.detect_candidates(batch.images, batch)
        return [replace_labels(*pair, detector.num_classes, likeliest=self.mode.endswith('ml'))
                for pair in zip(detections, candidates, strict=True)]


class TargetedLoss(LossObjective):
    """Loss of one type for given objects, times a sign. ground_truth: objects of every image of the batch."""

    def __init__(self, detector: 'Detector', batch: 'Batch', loss_type: str, ground_truth: Sequence[Instances],
                 sign: int):
        super().__init__(cast('Predictor', detector), batch)
        self.loss_type, self.ground_truth, self.sign = loss_type, ground_truth, sign

    def evaluate(self, images: Tensor, rows: Tensor, *, goals: Tensor | None = None, gradient: bool = True
                ) -> LossEvaluation:
        self.more = self.loss_type, [self.ground_truth[row] for row in rows.tolist()]
        evaluation = super().evaluate(images, rows, goals=goals, gradient=gradient)
        slope = None if evaluation.gradient is None else self.sign * evaluation.gradient
        return LossEvaluation(self.sign * evaluation.loss, evaluation.fooled, slope)


def replace_labels(detections: Instances, candidates: Detections, num_classes: int, *, likeliest: bool) -> Instances:
    """Return the detections with other labels, chosen by the scores of overlapping candidates."""
    if num_classes < 2:
        raise InputError('expected two classes or more for mislabeling, got a detector of one; take another mode')
    changed = []
    for instance in detections:
        overlaps = box_iou(torch.tensor([instance['bbox']]), candidates.boxes)[0] >= MIN_IOU
        scores = torch.zeros(num_classes).scatter_reduce(
            0, candidates.labels[overlaps], candidates.scores[overlaps], 'amax')
        scores[instance['bbox_label']] = -1 if likeliest else 2
        label = scores.argmax() if likeliest else scores.argmin()
        changed.append({**instance, 'bbox_label': int(label)})
    return Instances(changed)
