"""One image under several conditions side by side, each with what a detector finds in it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from PIL import Image
from torch import Tensor

from pit_downstream.core.condition import Condition
from pit_downstream.core.contracts import Sample
from pit_downstream.core.spec import spelled
from pit_downstream.evaluation.attacking import attack_curve
from pit_downstream.evaluation.corrupting import corrupted
from pit_downstream.evaluation.loading import RawBatch
from pit_downstream.det.instances import picture
from pit_downstream.det.pictures import paint, side_by_side
from pit_downstream.det.predictor import DetectorPredictor


def panels(predictor: DetectorPredictor, sample: Sample, conditions: Sequence[Condition], classes: tuple[str, ...], *,
           score_thr: float = 0.5, least: int = 384, seed: int = 0) -> Image.Image:
    """A picture with a panel for each condition: the image as the model saw it, at the size of the raw image, and the
    detections with scores from `score_thr`. least: small images are enlarged to at least this side."""
    scale = -(-least // max(sample.image.shape[-2:]))
    painted = []
    for condition in conditions:
        image, found = seen_under(predictor, sample, condition, seed=seed)
        painted.append(paint(image, found[found.scores >= score_thr], classes, scale=scale))
    return side_by_side(painted, list(map(heading, conditions)))


def seen_under(predictor: DetectorPredictor, sample: Sample, condition: Condition, *, seed: int = 0
               ) -> tuple[Tensor, InstanceData]:
    """The image under a condition, uint8 (3, H, W) at the size of the raw one, and what is found in it, on the CPU."""
    raw = RawBatch(sample.image[None], (sample.id,), (sample.target,))
    batch = predictor.collate(raw.samples(next(corrupted(raw, [Condition(condition.corruption)], seed))))
    if condition.attack is None:
        images, outputs = batch.images, predictor.predict(batch.images, batch)
    else:
        found, = attack_curve(predictor, batch, [condition.attack], seed)
        images, outputs = found.images, found.outputs
    rows, columns = picture(batch.samples[0].target, *images.shape[2:])
    shown, = F.interpolate(images[:, :, rows, columns], size=sample.image.shape[1:], mode='bilinear')
    return (shown * 255).round().to(torch.uint8).cpu(), outputs.predictions[0].pred_instances.cpu()


def heading(condition: Condition) -> str:
    """A few words: 'clean', 'fog 3', 'pgd 8/255'."""
    words = []
    if condition.corruption is not None:
        words.append(f'{condition.corruption.name} {condition.corruption.get("severity", "")}'.strip())
    if condition.attack is not None:
        words.append(f'{condition.attack.name} {spelled(condition.attack.get("epsilon"))}')
    return ' + '.join(words) or 'clean'
