"""TOG: attacks on what a detector finds by itself; they need no annotations (Chow et al. 2020, arXiv 2004.04320)."""

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
from pit_downstream.core.registry import ATTACKS
from pit_downstream.det.annotations import Instances, instances_of

if TYPE_CHECKING:
    from pit_downstream.core.contracts import Batch, Streams
    from pit_downstream.det.predictor import DetectorPredictor

SAME = 0.5  # IoU from which two boxes are taken for one object, as COCO's and VOC's AP do at their lowest
# (kind of loss, the sign with which it is climbed) by mode
AIMS = {'untargeted': ('all', 1), 'vanishing': ('cls', -1), 'fabrication': ('cls', 1), 'mislabelling_ml': ('all', -1),
        'mislabelling_ll': ('all', -1)}


@ATTACKS.register('tog', source='Chow et al. 2020, arXiv 2004.04320; git-disl/TOG', of='detectors')
@dataclass(frozen=True, kw_only=True)
class TOG(PGD):
    """A search that moves what the detector says of the clean image, with a score of `confidence` or more, elsewhere.

    mode: 'untargeted' climbs the losses for these detections as objects. 'vanishing' descends the loss of scores of an
    image without objects, 'fabrication' climbs it. 'mislabelling_ml' and 'mislabelling_ll' descend the losses for the
    same boxes with other labels: for each detection the likeliest other class, or the least likely (of equal ones the
    first). A class is as likely as the best score with which the detector, without its threshold, finds it at
    IoU >= 0.5; 0 if it does not.
    step: epsilon / 4 unless given, which is the original's 2/255 at its epsilon of 8/255.
    """

    steps: int = 10  # as all other defaults: git-disl/TOG, tog/attacks.py
    mode: str = 'untargeted'
    confidence: float = 0.3  # mmdet's demo shows boxes from there

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
        """What the losses are told to be in each image."""
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
    """The losses of one kind for objects of one's own, climbed with a sign. truth: of every image of the batch."""

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
    """The detections `seen` with other labels, chosen by the scores of the predictions in `every` that overlap them."""
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
    """How many classes of objects a detector tells apart. Raises ValueError for one that does not say it."""
    inner = getattr(model, 'roi_head', model)
    head = getattr(inner, 'bbox_head', None) or getattr(inner, 'mask_head', None)
    found = getattr(head[-1] if isinstance(head, nn.ModuleList) else head, 'num_classes', None)
    if found is None:
        raise ValueError(f'expected a detector with a number of classes, got {type(model).__name__}; choose another '
                         'attack or mode')
    return found


@contextmanager
def unthresholded(model: nn.Module) -> Iterator[None]:
    """The detector returns its predictions however small their scores, as many as it may return."""
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
    """The parts of a test_cfg that have a threshold."""
    if isinstance(cfg, dict):
        if 'score_thr' in cfg:
            yield cfg
        for part in cfg.values():
            yield from _settings(part)
