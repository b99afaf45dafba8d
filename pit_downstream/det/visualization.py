"""Images of detections: ground truth beside predictions, and one image under several conditions side by side."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.hooks import Hook
from mmengine.structures import InstanceData
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from pit_downstream.results.condition import Condition
from pit_downstream.utils.protocols import Sample
from pit_downstream.utils.path_checks import replace_atomically, resolve_inside
from pit_downstream.utils.spec import format_value
from pit_downstream.det.annotations import get_image_region
from pit_downstream.det.data_checks import LoadImageOrSkip
from pit_downstream.det.predictor import DetectorPredictor
from pit_downstream.evaluation.attacking import attack_curve
from pit_downstream.evaluation.corrupting import apply_corruption
from pit_downstream.evaluation.data_loading import RawBatch

COLORS = ['#e6194b', '#ffe119', '#4363d8', '#f58231', '#46f0f0', '#f032e6', '#bcf60c', '#fabebe', '#3cb44b', '#911eb4']
TITLES = ('ground truth', 'predictions')
GAP = 8  # pixels between two panels


@HOOKS.register_module()
class DrawDetectionsHook(Hook):
    """Hook that writes a PNG for every tested image to `out_dir`, under its path below the common folder of all images.

    The ground truth is that of the annotation file, without crowds and without changes by the pipeline. Of a broken
    image the part that decodes is shown, gray elsewhere.
    score_thr: minimum score of the predictions shown, in [0, 1]. least: small images are enlarged to at least this
    side. color_type, backend_args: of the loader, for three channels (mmcv.imfrombytes).
    """

    def __init__(self, out_dir: str, *, score_thr: float = 0.5, least: int = 384, color_type: str = 'color',
                 backend_args: dict | None = None):
        self.out_dir = Path(out_dir)
        self.score_thr = score_thr
        self.least = least
        self._load = LoadImageOrSkip(on_broken='keep', color_type=color_type, backend_args=backend_args)

    def before_test(self, runner) -> None:
        """Collect image information and output paths. Raises InputError for a path outside `out_dir`."""
        dataset = runner.test_dataloader.dataset
        self._infos = [dataset.get_data_info(index) for index in range(len(dataset))]
        self._index = {_make_key(info): index for index, info in enumerate(self._infos)}
        self._paths = [resolve_inside(self.out_dir, name) for name in _assign_file_names(self._infos)]

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs: Sequence[DetDataSample] | None = None):
        classes = runner.visualizer.dataset_meta['classes']
        for sample in outputs or ():
            index = self._index[_make_key(sample.metainfo)]
            info, path = self._infos[index], self._paths[index]
            pixels = np.ascontiguousarray(self._load(dict(info))['img'][..., ::-1])
            image = torch.from_numpy(pixels).permute(2, 0, 1)
            scale = -(-self.least // max(image.shape[-2:]))
            found = sample.pred_instances.cpu()
            truth = _get_ground_truth(info, pixels.shape[:2], masks='masks' in found)
            halves = [draw_objects(image, instances, classes, scale=scale)
                      for instances in (truth, found[found.scores >= self.score_thr])]
            with replace_atomically(path, sync=False) as new:
                join_panels(halves, TITLES).save(new)


def draw_objects(image: Tensor, instances: InstanceData, classes: tuple[str, ...], *, scale: int = 1) -> Tensor:
    """Draw boxes, masks if available, and labels with scores on an enlarged copy of an image.

    image: uint8 (3, H, W) RGB; instances: bboxes (n, 4) in its pixels, labels (n,), optional scores and masks.
    Returns uint8 (3, scale * H, scale * W). Lines and text scale with the image.
    """
    image = F.interpolate(image[None].float(), scale_factor=scale, mode='nearest')[0].to(torch.uint8)
    if not len(instances):
        return image
    colors = [COLORS[label % len(COLORS)] for label in instances.labels.tolist()]
    labels = [classes[label] for label in instances.labels.tolist()]
    if 'scores' in instances:
        labels = [f'{label} {score:.2f}' for label, score in zip(labels, instances.scores.tolist(), strict=True)]
    if 'masks' in instances:
        masks = instances.masks.to_ndarray() if hasattr(instances.masks, 'to_ndarray') else instances.masks
        masks = torch.as_tensor(masks).bool().repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        image = draw_segmentation_masks(image, masks, alpha=0.4, colors=colors)
    boxes = torch.as_tensor(getattr(instances.bboxes, 'tensor', instances.bboxes)) * scale
    image = draw_bounding_boxes(image, boxes, colors=colors, width=max(2, round(max(image.shape[1:]) / 300)))
    return _write_labels(image, boxes.tolist(), labels, colors)


def join_panels(panels: Sequence[Tensor], titles: Sequence[str]) -> Image.Image:
    """Combine panels (3, H, W) of one size in one image, each below its title."""
    height, width = panels[0].shape[1:]
    font = _load_font(max(height, width))
    heading = round(font.size) + 6
    paper = Image.new('RGB', (len(panels) * (width + GAP) - GAP, height + heading), 'white')
    for place, (title, panel) in enumerate(zip(titles, panels, strict=True)):
        left = place * (width + GAP)
        paper.paste(Image.fromarray(panel.permute(1, 2, 0).numpy()), (left, heading))
        ImageDraw.Draw(paper).text((left + 2, 2), title, fill='black', font=font)
    return paper


def _load_font(side: int) -> ImageFont.FreeTypeFont:
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size=max(10, side // 40)))  # in Pillow's wheels


def _write_labels(image: Tensor, boxes: Sequence[Sequence[float]], labels: Sequence[str], colors: Sequence[str]
                  ) -> Tensor:
    """Write each label above its box, or inside if there is no space. The first label is on top of the others."""
    paper = Image.fromarray(image.permute(1, 2, 0).numpy())
    draw, font = ImageDraw.Draw(paper), _load_font(max(paper.size))
    for (left, top, *_), label, color in reversed(list(zip(boxes, labels, colors, strict=True))):
        _, _, width, height = draw.textbbox((0, 0), label, font=font)
        left = max(0, min(left, paper.width - width - 4))
        top = top - height - 4 if top >= height + 4 else top
        draw.rectangle((left, top, left + width + 4, top + height + 4), fill=color)
        dark = cast(int, ImageColor.getcolor(color, 'L')) < 110  # one number in mode L
        draw.text((left + 2, top + 2), label, fill='white' if dark else 'black', font=font)
    return torch.from_numpy(np.array(paper)).permute(2, 0, 1)


def _get_ground_truth(info: Mapping, shape: tuple[int, int], *, masks: bool) -> InstanceData:
    """Return the objects of an image from its dataset, in pixels of the image, without crowds."""
    objects = [dict(one) for one in info.get('instances') or () if not one.get('ignore_flag')]
    if not objects:
        return InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    masks = masks and all(one.get('mask') for one in objects)
    loaded = LoadAnnotations(with_bbox=True, with_mask=masks, box_type=None).transform(
        {'instances': objects, 'ori_shape': shape, 'height': shape[0], 'width': shape[1]})
    found = InstanceData(bboxes=torch.from_numpy(loaded['gt_bboxes']),
                         labels=torch.from_numpy(loaded['gt_bboxes_labels']))
    if masks:
        found.masks = loaded['gt_masks']
    return found


def _make_key(info: Mapping) -> tuple[str, str]:
    """Return a unique key: joined datasets may share image ids, and entries of a file may share an image."""
    return str(info['img_path']), str(info['img_id'])


def _assign_file_names(infos: Sequence[Mapping]) -> list[str]:
    """Return a PNG name for each image, all different: the suffix is replaced, or kept if two differ in it alone."""
    paths = [os.path.normpath(info['img_path']) for info in infos]
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    names = [os.path.relpath(os.path.abspath(path), root) for path in paths]
    for unique in ([f'{os.path.splitext(name)[0]}.png' for name in names], [f'{name}.png' for name in names]):
        if len(set(unique)) == len(names):
            return unique
    counts = Counter(names)
    return [f'{name}.{info["img_id"]}.png'.replace(os.sep, '_') if counts[name] > 1 else f'{name}.png'
            for name, info in zip(names, infos, strict=True)]


def draw_panels(predictor: DetectorPredictor, sample: Sample, conditions: Sequence[Condition],
                classes: tuple[str, ...], *, score_thr: float = 0.5, least: int = 384, seed: int = 0) -> Image.Image:
    """Draw an image with a panel for each condition: the network's image at raw size, with its detections.

    score_thr: minimum score of the detections shown. least: small images are enlarged to at least this side.
    """
    scale = -(-least // max(sample.image.shape[-2:]))
    painted = []
    for condition in conditions:
        image, found = predict_under(predictor, sample, condition, seed=seed)
        painted.append(draw_objects(image, found[found.scores >= score_thr], classes, scale=scale))
    return join_panels(painted, list(map(format_title, conditions)))


def predict_under(predictor: DetectorPredictor, sample: Sample, condition: Condition, *, seed: int = 0
                  ) -> tuple[Tensor, InstanceData]:
    """Return the image under a condition, uint8 (3, H, W) at raw size, and its detections, on the CPU."""
    raw = RawBatch(sample.image[None], (0,), (sample.id,), (sample.target,))
    batch = predictor.collate(raw.samples(next(apply_corruption(raw, [Condition(condition.corruption)], seed))))
    if condition.attack is None:
        images, outputs = batch.images, predictor.predict(batch.images, batch)
    else:
        found, = attack_curve(predictor, batch, [condition.attack], seed)
        images, outputs = found.images, found.outputs
    rows, columns = get_image_region(batch.samples[0].target, *images.shape[2:])
    shown, = F.interpolate(images[:, :, rows, columns], size=sample.image.shape[1:], mode='bilinear')
    return (shown * 255).round().to(torch.uint8).cpu(), outputs.predictions[0].pred_instances.cpu()


def format_title(condition: Condition) -> str:
    """Return a short title: 'clean', 'fog 3', 'pgd 8/255'."""
    words = []
    if condition.corruption is not None:
        words.append(f'{condition.corruption.name} {condition.corruption.get("severity", "")}'.strip())
    if condition.attack is not None:
        words.append(f'{condition.attack.name} {format_value(condition.attack.get("epsilon"))}')
    return ' + '.join(words) or 'clean'
