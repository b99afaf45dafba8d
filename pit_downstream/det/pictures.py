"""Pictures of what a detector found: true boxes left, found ones right."""

from pathlib import Path

import mmcv
import torch
import torch.nn.functional as F
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.hooks import Hook
from mmengine.structures import InstanceData
from PIL import Image
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

COLOURS = ['#e6194b', '#ffe119', '#4363d8', '#f58231', '#46f0f0', '#f032e6', '#bcf60c', '#fabebe', '#3cb44b', '#911eb4']


@HOOKS.register_module()
class PictureHook(Hook):
    """Write a PNG for every tested image into `out_dir`, under the image's name.

    score_thr: found boxes below it, in [0, 1], are left out. least: small images are enlarged to at least this side.
    """

    def __init__(self, out_dir: str, *, score_thr: float = 0.5, least: int = 384):
        self.out_dir = Path(out_dir)
        self.score_thr = score_thr
        self.least = least

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs: list[DetDataSample] | None = None):
        self.out_dir.mkdir(parents=True, exist_ok=True)
        classes = runner.visualizer.dataset_meta['classes']
        for sample in outputs:
            image = torch.from_numpy(mmcv.imread(sample.img_path, channel_order='rgb')).permute(2, 0, 1)
            scale = -(-self.least // max(image.shape[-2:]))
            found = sample.pred_instances.cpu()
            halves = [paint(image, instances, classes, scale=scale)
                      for instances in (sample.gt_instances.cpu(), found[found.scores >= self.score_thr])]
            gap = torch.full((3, halves[0].shape[1], 8), 255, dtype=torch.uint8)
            picture = torch.cat((halves[0], gap, halves[1]), dim=2)
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(self.out_dir / f'{Path(sample.img_path).stem}.png')


def paint(image: Tensor, instances: InstanceData, classes: tuple[str, ...], *, scale: int = 1) -> Tensor:
    """Boxes, masks where there are some, and labels with scores painted on an enlarged copy of an image.

    image: uint8 (3, H, W) RGB; instances: bboxes (n, 4) in its pixels, labels (n,), optional scores and masks.
    Returns uint8 (3, scale * H, scale * W).
    """
    image = F.interpolate(image[None].float(), scale_factor=scale, mode='nearest')[0].to(torch.uint8)
    if not len(instances):
        return image
    colours = [COLOURS[label % len(COLOURS)] for label in instances.labels.tolist()]
    labels = [classes[label] for label in instances.labels.tolist()]
    if 'scores' in instances:
        labels = [f'{label} {score:.2f}' for label, score in zip(labels, instances.scores.tolist())]
    if 'masks' in instances:
        masks = torch.as_tensor(getattr(instances.masks, 'masks', instances.masks)).bool()
        masks = masks.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        image = draw_segmentation_masks(image, masks, alpha=0.4, colors=colours)
    boxes = torch.as_tensor(getattr(instances.bboxes, 'tensor', instances.bboxes)) * scale
    return draw_bounding_boxes(image, boxes, labels, colors=colours, width=2, fill_labels=True, label_colors='black')
