"""DAG: dense adversary generation, a wrong label for each target of a detector (Xie et al. 2017, arXiv 1703.08603)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.structures.bbox import bbox2roi
from torch import Tensor, nn

from pit_downstream.attacks.base import Attack
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.det.tog import classes_of, require_detector

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Batch, Streams
    from pit_downstream.det.predictor import DetectorPredictor

SURE = 0.1  # minimum score of a target on the clean image: cihangxie/DAG
Inputs = dict[str, object]  # model inputs: 'inputs' (1, 3, H, W) and 'data_samples'


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
            raise ValueError(f'steps is 1 or more and step more than 0, got {self.steps} and {self.step}')

    def run(self, predictor: 'DetectorPredictor', batch: 'Batch', rng: 'Streams') -> Tensor:
        require_detector(predictor, 'dag')
        return torch.cat([self._attack_image(predictor, batch.part([row]), rng.rows([row], [0], 'dag', 'cpu'))
                          for row in range(len(batch.images))])

    def _attack_image(self, predictor: 'DetectorPredictor', part: 'Batch', rng: 'Streams') -> Tensor:
        """Attack one image (1, 3, H, W)."""
        (_, data), = predictor.model_inputs(part.images, part)
        logits_of, classes = target_logits(predictor.model, data), classes_of(predictor.model)
        clean = logits_of(data)
        labels, targets = _labels(clean, classes)
        if not targets.any():
            return part.images
        wrong = _wrong_labels(labels, classes, rng)
        found = part.images
        for _ in range(self.steps):
            with torch.enable_grad():
                asked = found.detach().requires_grad_()
                (_, data), = predictor.model_inputs(asked, part)
                logits = logits_of(data)
                active = targets & (_labels(logits.detach(), classes)[0] == labels)
                if not active.any():
                    break
                aim = (_of(logits, wrong) - _of(logits, labels))[active].sum()
                slope = torch.autograd.grad(aim, asked)[0] * part.valid
            longest = slope.abs().amax()
            if longest == 0:
                break
            found = self.threat.within(part.images, found + self.step * slope / longest, part.valid)
        return found


def target_logits(model: nn.Module, clean: Inputs) -> Callable[[Inputs], Tensor]:
    """Return a function from inputs to logits (targets, classes), with a last column for the background if it has one.

    Raises ValueError for unsupported detectors.
    """
    if isinstance(getattr(model, 'roi_head', None), StandardRoIHead) and model.with_rpn:
        proposals = model.rpn_head.predict(model.extract_feat(clean['inputs']), clean['data_samples'], rescale=False)
        rois = bbox2roi([one.bboxes for one in proposals])
        return lambda data: model.roi_head._bbox_forward(model.extract_feat(data['inputs']), rois)['cls_score']
    if isinstance(model, DetectionTransformer):
        return lambda data: model(**data, mode='tensor')[0][-1][0]
    width = getattr(getattr(model, 'bbox_head', None), 'cls_out_channels', None)
    if width is None or hasattr(model, 'roi_head'):
        raise ValueError(f'expected a detector in one or two stages or a DETR for dag, got {type(model).__name__}; '
                         'choose another attack')
    return lambda data: torch.cat([_flat(level, width) for level in model(**data, mode='tensor')[0]])


def _flat(level: Tensor, width: int) -> Tensor:
    """Reshape the scores (1, A * width, H, W) of a pyramid level to (targets, width)."""
    if level.shape[1] % width:
        raise ValueError(f'expected scores apart from boxes for dag, got {level.shape[1]} channels for {width} '
                         'classes; choose another attack')
    return level[0].permute(1, 2, 0).reshape(-1, width)


def _labels(logits: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return the label of each candidate and whether it is a target. Label `classes` is the background."""
    if logits.shape[1] > classes:
        scores, labels = logits.softmax(1).max(1)
        return labels, (scores > SURE) & (labels < classes)
    scores, labels = logits.sigmoid().max(1)
    return torch.where(scores > SURE, labels, classes), scores > SURE


def _wrong_labels(labels: Tensor, classes: int, rng: 'Streams') -> Tensor:
    if classes == 1:
        return torch.full_like(labels, classes)
    ahead = rng.integers(1, classes, (1, len(labels)))[0].to(labels)
    return (labels + ahead) % classes


def _of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logit of each target's label, or 0 for a background without a column."""
    padded = torch.cat([logits, logits.new_zeros(len(logits), 1)], 1)
    return padded.gather(1, labels[:, None])[:, 0]
