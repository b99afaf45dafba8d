"""DAG: dense adversary generation, a wrong label for each target of a detector (Xie et al. 2017, arXiv 1703.08603)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pit_downstream.attacks.base import Attack, check_detector
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import ATTACKS

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Batch, Detector, Predictor, Rng, Streams

MIN_SCORE = 0.1  # of a target on the clean image: cihangxie/DAG


@ATTACKS.register('dag', source='Xie et al. 2017, arXiv 1703.08603; cihangxie/DAG', of='detectors')
@dataclass(frozen=True, kw_only=True)
class DAG(Attack):
    """Attack that lowers the logits of all targets that still have their label and raises those of wrong labels.

    Targets are the candidates for detections: in two-stage detectors the proposals for the clean image (kept fixed), in
    DETR variants the queries, in one-stage detectors all anchors or points. The label of a target is its prediction on
    the clean image, if the score is over 0.1. (Xie et al. use the annotated labels where both agree.) The wrong label
    of each target is drawn once. With a single class it is the background.
    The largest absolute value of a step is `step`, in pixel scale. The search ends without targets. The original does
    not bound the sum of its steps; set epsilon=1 for no bound.
    """

    steps: int = 150  # for detection: Xie et al. 2017
    step: float = 0.5 / 255  # gamma of Xie et al. 2017

    def __post_init__(self):
        super().__post_init__()
        if self.steps < 1 or self.step <= 0:
            raise InputError(f'steps is 1 or more and step more than 0, got {self.steps} and {self.step}')

    def run(self, predictor: 'Predictor', batch: 'Batch', rng: 'Streams') -> Tensor:
        detector = check_detector(predictor, 'dag')
        return torch.cat([self._attack_image(detector, batch.part([row]), rng.rows([row], [0], 'dag', 'cpu'))
                          for row in range(len(batch.images))])

    def _attack_image(self, detector: 'Detector', part: 'Batch', rng: 'Rng') -> Tensor:
        """Attack one image (1, 3, H, W)."""
        compute_logits, num_classes = detector.make_target_logits(part), detector.num_classes
        labels, targets = _predict_labels(compute_logits(part.images), num_classes)
        if not targets.any():
            return part.images
        if num_classes == 1:
            wrong = torch.full_like(labels, num_classes)
        else:
            offsets = rng.integers(1, num_classes, (1, len(labels)))[0].to(labels)
            wrong = (labels + offsets) % num_classes
        adversarial = part.images
        for _ in range(self.steps):
            with torch.enable_grad():
                images = adversarial.detach().requires_grad_()
                logits = compute_logits(images)
                active = targets & (_predict_labels(logits.detach(), num_classes)[0] == labels)
                if not active.any():
                    break
                gap = (_gather_logits(logits, wrong) - _gather_logits(logits, labels))[active].sum()
                gradient = torch.autograd.grad(gap, images)[0] * part.valid
            largest = gradient.abs().amax()
            if largest == 0:
                break
            adversarial = self.threat.project_images(
                part.images, adversarial + self.step * gradient / largest, part.valid)
        return adversarial


def _predict_labels(logits: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the label of each candidate and whether it is a target. Label `num_classes` is the background."""
    if logits.shape[1] > num_classes:
        scores, labels = logits.softmax(1).max(1)
        return labels, (scores > MIN_SCORE) & (labels < num_classes)
    scores, labels = logits.sigmoid().max(1)
    return torch.where(scores > MIN_SCORE, labels, num_classes), scores > MIN_SCORE


def _gather_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logit of each target's label, or 0 for a background without a column."""
    padded = torch.cat([logits, logits.new_zeros(len(logits), 1)], 1)
    return padded.gather(1, labels[:, None])[:, 0]
