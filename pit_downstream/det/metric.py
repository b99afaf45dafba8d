"""Average precision of detections: COCO's, for boxes and masks, and VOC's."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.registry import METRICS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmengine.config import Config

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Batch, MetricValue, Outputs
from pit_downstream.results.outcomes import Outcomes
from pit_downstream.metrics.classification import require_images
from pit_downstream.det.annotation_files import get_original_annotations
from pit_downstream.det.logging_utils import suppress_output
from pit_downstream.det.samples import DetectionSamples
from pit_downstream.det.ground_truth import GroundTruth, load_coco_tools

# Indices in COCOeval.summarize(). AP comes last: if it is recorded, all are recorded.
PLACES = {'AP_small': 3, 'AP_medium': 4, 'AP_large': 5, 'AP75': 2, 'AP50': 1, 'AP': 0}
MOST = (100, 300, 1000)  # maximum detections per image in mmdet's CocoMetric: AP at 100, the others at 1000
BOXES, MASKS = 'bbox', 'segm'
_PREFIXES = {BOXES: '', MASKS: 'mask_'}


class DetectionMetric:
    """Base class of metrics of all detections of a dataset, which are stored per image.

    Attributes:
        source: Name of the code that computes the numbers.
    """

    needs_trace = False
    value_names = ('detections',)
    name: str
    record_name: str
    source: str

    def measure(self, outputs: Outputs, batch: Batch) -> dict[str, list[dict[str, Any]]]:
        """Return the detections of each image. outputs.predictions: a DetDataSample per image, as of mmdet's models."""
        for prediction in outputs.predictions:
            if not prediction.pred_instances.scores.isfinite().all():
                raise InputError(f'scores must be finite, got NaN or infinity in image {prediction.img_id}. Check the '
                                 'weights.')
        return {'detections': [self.make_item(prediction) for prediction in outputs.predictions]}

    def compute(self, outcomes: Outcomes, samples: DetectionSamples) -> list[MetricValue]:
        """Compute the numbers over the images with detections. Raises InputError without an image."""
        indices = outcomes.is_known('detections').nonzero()[0].tolist()
        require_images(len(indices))
        items = dict(zip((samples.info(index)['img_id'] for index in indices), outcomes.get_values('detections'),
                         strict=True))
        numbers = self.compute_values({id: items[id] for id in sorted(items)})
        return [MetricValue(name, value, len(indices)) for name, value in numbers.items()]

    def make_item(self, prediction: DetDataSample) -> dict[str, Any]:
        """Return the stored part of a prediction: arrays, numbers and text in dicts and lists."""
        raise NotImplementedError

    def compute_values(self, items: Mapping[Any, Any]) -> dict[str, float]:
        """Return the numbers by name. items: by image id."""
        raise NotImplementedError


class CocoAP(DetectionMetric):
    """COCO's AP, at several IoUs and object sizes, from unrounded precisions over the evaluated images.

    AP is the mean over IoU 0.5 to 0.95. AP50 and AP75 are at one IoU. AP_small, AP_medium and AP_large are those of
    objects by area. Values without objects are omitted.

    Args:
        truth: Ground truth.
        kinds: 'bbox', 'segm' (for 'mask_AP' etc.), or both.
        max_detections, thresholds: Maximum detections per image and IoU thresholds, as in mmdet's CocoMetric.
    """

    def __init__(self, truth: GroundTruth, kinds: Sequence[str] = (BOXES,), *, max_detections: Sequence[int] = MOST,
                 thresholds: Sequence[float] | None = None):
        self.truth, self.kinds, self.thresholds = truth, tuple(kinds), thresholds
        self.max_detections = list(max_detections)
        self.names = tuple(f'{_PREFIXES[kind]}AP' for kind in kinds)
        self.name, self.record_name, self.source = self.names[0], self.names[-1], load_coco_tools()[2]

    def make_item(self, prediction: DetDataSample) -> dict[str, Any]:
        """Return arrays of length n: labels, scores and boxes (left, top, right, bottom); masks are a list of RLE."""
        instances, classes = prediction.pred_instances, len(self.truth.category_ids)
        item = {'labels': instances.labels.cpu().numpy(), 'scores': instances.scores.cpu().numpy()}
        if (item['labels'] >= classes).any():
            raise InputError(f'labels must be of the {classes} classes of the dataset, got {item["labels"].max()}. Set '
                             'metainfo.classes of test_dataloader.dataset, or pass another checkpoint.')
        if BOXES in self.kinds:
            item['boxes'] = instances.bboxes.cpu().numpy()
        if MASKS in self.kinds:
            if 'masks' not in instances:
                raise InputError('mask AP needs masks, and the detector has boxes alone. Leave segm out of '
                                 'test_evaluator.metric.')
            masks = instances.masks
            encoded = encode_mask_results(masks.cpu().numpy()) if isinstance(masks, torch.Tensor) else masks
            item['masks'] = [{'size': list(map(int, mask['size'])), 'counts': _format_counts(mask['counts'])}
                             for mask in encoded]
            if 'mask_scores' in instances:
                item['mask_scores'] = instances.mask_scores.cpu().numpy()
        return item

    def compute_values(self, items: Mapping[Any, dict[str, Any]]) -> dict[str, float]:
        values: dict[str, float] = {}
        for kind in self.kinds:
            numbers = self._evaluate(items, kind)
            if numbers[PLACES['AP']] < 0:
                raise InputError(f'the {len(items)} images have no objects. Check the annotation file.')
            values |= {f'{_PREFIXES[kind]}{name}': float(numbers[index]) for name, index in PLACES.items()
                       if numbers[index] >= 0}
        return values

    def _evaluate(self, items: Mapping[Any, dict[str, Any]], kind: str) -> np.ndarray:
        """Return the numbers of COCOeval.summarize(), with -1 for those without objects."""
        coco, evaluation, _ = load_coco_tools()
        results = list(self._format_results(items, kind))
        with suppress_output():
            detected = self.truth.api.loadRes(results) if results else coco()
            run = evaluation(self.truth.api, detected, kind)
            run.params.imgIds = [self.truth.image_numbers[id] for id in items]
            run.params.catIds = list(self.truth.category_ids)
            run.params.maxDets = self.max_detections
            run.params.iouThrs = run.params.iouThrs if self.thresholds is None else np.asarray(self.thresholds)
            run.evaluate()
            run.accumulate()
            run.summarize()
        return np.asarray(run.stats)

    def _format_results(self, items: Mapping[Any, dict[str, Any]], kind: str) -> Iterable[dict]:
        """Yield detections in COCO's results format, with box sides in double precision as mmdet computes them."""
        for id, item in items.items():
            categories = [self.truth.category_ids[label] for label in item['labels'].tolist()]
            scores = item['scores']
            if kind == BOXES:
                shapes: list[dict[str, Any]] = [{'bbox': [left, top, right - left, bottom - top]}
                                                for left, top, right, bottom in item['boxes'].tolist()]
            else:
                shapes, scores = [{'segmentation': mask} for mask in item['masks']], item.get('mask_scores', scores)
            for category, score, shape in zip(categories, scores.tolist(), shapes, strict=True):
                yield {'image_id': self.truth.image_numbers[id], 'category_id': category, 'score': score, **shape}


class VocAP(DetectionMetric):
    """VOC's mean AP from the config's VOCMetric, without difficult objects. AP50 is at its default IoU of 0.5.

    Args:
        cfg: Of the VOCMetric.
        metainfo: Of the dataset, with the classes and the year.
    """

    def __init__(self, cfg: Mapping, metainfo: Mapping):
        self._metric = METRICS.build(dict(cfg))
        self._metric.dataset_meta = dict(metainfo)
        self.name = self.record_name = 'AP50' if self._metric.iou_thrs == [0.5] else 'AP'
        self.names, self.source = (self.name,), "mmdet's VOCMetric"

    def make_item(self, prediction: DetDataSample) -> dict[str, Any]:
        self._metric.results.clear()
        self._metric.process({}, [prediction.to_dict()])
        annotations, detections = self._metric.results.pop()
        return {'annotations': annotations, 'detections': list(detections)}

    def compute_values(self, items: Mapping[Any, dict[str, Any]]) -> dict[str, float]:
        results = [(item['annotations'], item['detections']) for item in items.values()]
        with suppress_output():
            value = self._metric.compute_metrics(results)['mAP']  # its only unrounded number
        if math.isnan(value):
            raise InputError(f'the {len(items)} images have no objects. Check the annotations.')
        return {self.name: float(value)}


def build_metric(cfg: Config, samples: DetectionSamples) -> CocoAP | VocAP:
    """Build the metric of the test_evaluator of `cfg`: COCO's AP of boxes and masks, or VOC's.

    COCO's objects come from its ann_file, or from the dataset if it has none.
    """
    chosen = _find_evaluator(cfg)
    if chosen['type'] == 'VOCMetric':
        return VocAP(chosen, samples.dataset.metainfo)
    kinds = chosen.get('metric', BOXES)
    wanted = [kind for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind in (BOXES, MASKS)]
    if not wanted:
        raise InputError(f'expected {BOXES} or {MASKS} in test_evaluator.metric, got {kinds}; add one of them')
    return CocoAP(build_ground_truth(cfg, samples), wanted, max_detections=chosen.get('proposal_nums', MOST),
                  thresholds=chosen.get('iou_thrs'))


def build_ground_truth(cfg: Config, samples: DetectionSamples) -> GroundTruth:
    """Return the ground truth of the samples, from the annotation file of the test_evaluator if it has one."""
    path = _find_evaluator(cfg).get('ann_file')
    if path:
        return GroundTruth.of_file(path, samples.classes, original=get_original_annotations(cfg, path))
    return GroundTruth.of_samples(samples)


def _find_evaluator(cfg: Config) -> dict:
    """Return the first CocoMetric or VOCMetric of the config, as a plain dict."""
    given = cfg.get('test_evaluator') or []
    every = given if isinstance(given, (list, tuple)) else [given]
    known = [one for one in every if one.type in ('CocoMetric', 'CocoMetricByName', 'VOCMetric')]
    if not known:
        got = ', '.join(one.type for one in every) or 'none'
        raise InputError(f'expected CocoMetric or VOCMetric as test_evaluator, got {got}; to measure '
                         "COCO's AP, give --cfg-options test_evaluator.type=CocoMetric")
    return known[0].to_dict()


def _format_counts(counts: bytes | str) -> str:
    return counts.decode() if isinstance(counts, bytes) else counts
