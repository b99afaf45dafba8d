"""TOG: attacks on a detector's own predictions, without annotations (Chow et al. 2020, arXiv 2004.04320)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torchvision.ops import box_iou

from pit_downstream.attacks.gradient import PGD
from pit_downstream.attacks.objective import LossEvaluation, LossObjective
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.det.annotations import Instances, instances_of

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Batch, Streams
    from pit_downstream.det.predictor import DetectorPredictor

SAME = 0.5  # minimum IoU of two boxes for one object, the lowest in COCO's and VOC's AP
# mode -> (kind of loss, sign of the step along its gradient)
AIMS = {'untargeted': ('all', 1), 'vanishing': ('cls', -1), 'fabrication': ('cls', 1), 'mislabeling_ml': ('all', -1),
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
        if self.mode not in AIMS:
            raise ValueError(f'mode is one of {", ".join(AIMS)}, got {self.mode!r}')
        if not 0 <= self.confidence <= 1:
            raise ValueError(f'confidence is 0..1, got {self.confidence}')

    @property
    def length(self) -> float:
        return self.threat.epsilon / 4 if self.step is None else self.step

    def run(self, predictor: 'DetectorPredictor', batch: 'Batch', rng: 'Streams') -> Tensor:
        require_detector(predictor, 'tog')
        kind, sign = AIMS[self.mode]
        objective = TargetedLoss(predictor, batch, kind, self._truth(predictor, batch), sign)
        return self.run_search(objective, batch.images, rng)[0]

    def _truth(self, predictor: 'DetectorPredictor', batch: 'Batch') -> list[Instances]:
        """Return the objects for the losses of each image."""
        if self.mode in ('vanishing', 'fabrication'):
            return [Instances()] * len(batch.images)
        found = [one.pred_instances for one in predictor.predict(batch.images, batch).predictions]
        seen = [instances_of(one, least=self.confidence) for one in found]
        if self.mode == 'untargeted':
            return seen
        with unthresholded(predictor.model):
            every = [one.pred_instances.cpu() for one in predictor.predict(batch.images, batch).predictions]
        classes, likeliest = classes_of(predictor.model), self.mode.endswith('ml')
        return [renamed(one, candidates, classes, likeliest=likeliest)
                for one, candidates in zip(seen, every, strict=True)]


class TargetedLoss(LossObjective):
    """Losses of one kind for given objects, times a sign. truth: objects of every image of the batch."""

    def __init__(self, predictor: 'DetectorPredictor', batch: 'Batch', kind: str, truth: Sequence[Instances],
                 sign: int):
        super().__init__(predictor, batch)
        self.kind, self.truth, self.sign = kind, truth, sign

    def examine(self, images: Tensor, rows: Tensor, *, goals: Tensor | None = None, gradient: bool = True
                ) -> LossEvaluation:
        self.more = self.kind, [self.truth[row] for row in rows.tolist()]
        seen = super().examine(images, rows, goals=goals, gradient=gradient)
        slope = None if seen.gradient is None else self.sign * seen.gradient
        return LossEvaluation(self.sign * seen.loss, seen.fooled, slope)


def require_detector(predictor: object, name: str) -> None:
    if not hasattr(predictor, 'model_inputs'):
        raise ValueError(f'expected a detector for {name}, got {predictor.name}; give --config and a checkpoint')


def renamed(seen: Instances, every: InstanceData, classes: int, *, likeliest: bool) -> Instances:
    """Return the detections `seen` with other labels, chosen by the scores of overlapping predictions in `every`."""
    if classes < 2:
        raise ValueError('expected two classes or more for mislabeling, got a detector of one; take another mode')
    changed = []
    for one in seen:
        overlap = box_iou(torch.tensor([one['bbox']]), every.bboxes)[0] >= SAME
        scores = torch.zeros(classes).scatter_reduce(0, every.labels[overlap], every.scores[overlap], 'amax')
        scores[one['bbox_label']] = -1 if likeliest else 2
        label = scores.argmax() if likeliest else scores.argmin()
        changed.append({**one, 'bbox_label': int(label)})
    return Instances(changed)


def classes_of(model: nn.Module) -> int:
    """Return the number of object classes of a detector. Raises ValueError if the model does not define it."""
    inner = getattr(model, 'roi_head', model)
    head = getattr(inner, 'bbox_head', None) or getattr(inner, 'mask_head', None)
    found = getattr(head[-1] if isinstance(head, nn.ModuleList) else head, 'num_classes', None)
    if found is None:
        raise ValueError(f'expected a detector with a number of classes, got {type(model).__name__}; choose another '
                         'attack or mode')
    return found


@contextmanager
def unthresholded(model: nn.Module) -> Iterator[None]:
    """Remove the score thresholds of a detector, so that it returns as many predictions as it may."""
    changed = []
    for settings in {id(one): one for module in model.modules() for one in _settings(getattr(module, 'test_cfg', None))
                     }.values():
        changed.append((settings, settings['score_thr']))
        settings['score_thr'] = 0.
    try:
        yield
    finally:
        for settings, before in changed:
            settings['score_thr'] = before


def _settings(cfg: object) -> Iterator[dict]:
    """Yield the parts of a test_cfg that have a score threshold."""
    if isinstance(cfg, dict):
        if 'score_thr' in cfg:
            yield cfg
        for part in cfg.values():
            yield from _settings(part)
