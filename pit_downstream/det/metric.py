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
from pit_downstream.utils.protocols import Batch, Outputs
from pit_downstream.evaluation.distributed import all_gather
from pit_downstream.det.annotation_files import get_original_annotations
from pit_downstream.det.logging_utils import suppress_output
from pit_downstream.det.samples import DetectionSamples
from pit_downstream.det.ground_truth import GroundTruth, load_coco_tools

# Indices in COCOeval.summarize(). AP comes last: if it is recorded, all are recorded.
PLACES = {'AP_small': 3, 'AP_medium': 4, 'AP_large': 5, 'AP75': 2, 'AP50': 1, 'AP': 0}
MOST = (100, 300, 1000)  # maximum detections per image in mmdet's CocoMetric: AP at 100, the others at 1000
BOXES, MASKS = 'bbox', 'segm'


class GatheredMetric:
    """Base class of metrics that store the detections of each image by image id.

    Under torch.distributed all ranks evaluate the images of all ranks, each once, in one order. source: name of the
    code that computes the numbers.
    """

    needs_trace = False
    higher_is_better = True
    name: str
    source: str

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        self.count = 0
        self._found: dict[Any, Any] = {}

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Store predictions. outputs.predictions: a DetDataSample per image, as returned by mmdet's models."""
        for one in outputs.predictions:
            scores = one.pred_instances.scores
            if not scores.isfinite().all():
                raise InputError(f'expected finite scores, got NaN or infinity in image {one.img_id}; check the '
                                 'weights')
            self._found[one.img_id] = self.kept(one)

    def compute(self) -> dict[str, float]:
        """Compute the values by name, over the images of all ranks. Raises InputError without an image."""
        found = dict(all_gather(list(self._found.items())))
        self.count = len(found)
        if not found:
            raise InputError('expected at least one image, got none; check the data and --limit')
        return self.values({id: found[id] for id in sorted(found)})

    def kept(self, one: DetDataSample) -> Any:
        """Return the part of a prediction to store, on the CPU."""
        raise NotImplementedError

    def values(self, found: Mapping[Any, Any]) -> dict[str, float]:
        raise NotImplementedError


class CocoAP(GatheredMetric):
    """COCO's AP, at several IoUs and object sizes, from unrounded precisions over the evaluated images.

    AP is the mean over IoU 0.5 to 0.95. AP50 and AP75 are at one IoU. AP_small, AP_medium and AP_large are those of
    objects by area. Values without objects are omitted. kind: 'bbox', or 'segm' for 'mask_AP' etc.
    most, thresholds: maximum detections per image and IoU thresholds, as in mmdet's CocoMetric.
    """

    def __init__(self, truth: GroundTruth, kind: str = BOXES, *, most: Sequence[int] = MOST,
                 thresholds: Sequence[float] | None = None):
        self.truth, self.kind, self.most, self.thresholds = truth, kind, list(most), thresholds
        self._prefix = 'mask_' if kind == MASKS else ''
        self.name, self.source = f'{self._prefix}AP', load_coco_tools()[2]
        super().__init__()

    def kept(self, one: DetDataSample) -> dict[str, Any]:
        """Return arrays of length n: labels, scores and boxes (left, top, right, bottom), or RLE for masks."""
        found, classes = one.pred_instances, len(self.truth.category_ids)
        kept = {'labels': found.labels.cpu().numpy(), 'scores': found.scores.cpu().numpy()}
        if (kept['labels'] >= classes).any():
            raise InputError(f'expected labels of the {classes} classes of the dataset, got {kept["labels"].max()}; '
                             'set metainfo.classes of test_dataloader.dataset, or take another checkpoint')
        if self.kind == BOXES:
            return kept | {'boxes': found.bboxes.cpu().numpy()}
        if 'masks' not in found:
            raise InputError('expected masks from the detector for mask AP, got boxes alone; leave segm out of '
                             'test_evaluator.metric')
        masks = found.masks
        lengths = encode_mask_results(masks.cpu().numpy()) if isinstance(masks, torch.Tensor) else masks
        if 'mask_scores' in found:
            kept['scores'] = found.mask_scores.cpu().numpy()
        return kept | {'masks': lengths}

    def values(self, found: Mapping[Any, dict[str, Any]]) -> dict[str, float]:
        numbers = self._evaluate(found)
        if numbers[PLACES['AP']] < 0:
            raise InputError(f'expected objects in the {len(found)} images, found none; check the annotation file')
        return {f'{self._prefix}{name}': float(numbers[place]) for name, place in PLACES.items() if numbers[place] >= 0}

    def _evaluate(self, found: Mapping[Any, dict[str, Any]]) -> np.ndarray:
        """Return the numbers of COCOeval.summarize(), with -1 for those without objects."""
        coco, evaluation, _ = load_coco_tools()
        results = list(self._format_results(found))
        with suppress_output():
            detected = self.truth.api.loadRes(results) if results else coco()
            run = evaluation(self.truth.api, detected, self.kind)
            run.params.imgIds = [self.truth.image_numbers[id] for id in found]
            run.params.catIds = list(self.truth.category_ids)
            run.params.maxDets = self.most
            run.params.iouThrs = run.params.iouThrs if self.thresholds is None else np.asarray(self.thresholds)
            run.evaluate()
            run.accumulate()
            run.summarize()
        return np.asarray(run.stats)

    def _format_results(self, found: Mapping[Any, dict[str, Any]]) -> Iterable[dict]:
        """Yield detections in COCO's results format, with box sides in double precision as mmdet computes them."""
        for id, one in found.items():
            categories = [self.truth.category_ids[label] for label in one['labels'].tolist()]
            if self.kind == BOXES:
                shapes: list[dict[str, Any]] = [{'bbox': [left, top, right - left, bottom - top]}
                          for left, top, right, bottom in one['boxes'].tolist()]
            else:
                shapes = [{'segmentation': {**mask, 'counts': _format_counts(mask['counts'])}} for mask in one['masks']]
            for category, score, shape in zip(categories, one['scores'].tolist(), shapes, strict=True):
                yield {'image_id': self.truth.image_numbers[id], 'category_id': category, 'score': score, **shape}


class VocAP(GatheredMetric):
    """VOC's mean AP from the config's VOCMetric, without difficult objects. AP50 is at its default IoU of 0.5.

    cfg: of the VOCMetric. about: the dataset's metainfo, with the classes and the year.
    """

    def __init__(self, cfg: Mapping, about: Mapping):
        self._metric = METRICS.build(dict(cfg))
        self._metric.dataset_meta = dict(about)
        self.name, self.source = 'AP50' if self._metric.iou_thrs == [0.5] else 'AP', "mmdet's VOCMetric"
        super().__init__()

    def kept(self, one: DetDataSample) -> tuple:
        self._metric.results.clear()
        self._metric.process({}, [one.to_dict()])
        return self._metric.results.pop()

    def values(self, found: Mapping[Any, tuple]) -> dict[str, float]:
        with suppress_output():
            value = self._metric.compute_metrics(list(found.values()))['mAP']  # its only unrounded number
        if math.isnan(value):
            raise InputError(f'expected objects in the {len(found)} images, found none; check the annotations')
        return {self.name: float(value)}


def build_metrics(cfg: Config, samples: DetectionSamples) -> list[GatheredMetric]:
    """Build the metrics of the test_evaluator of `cfg`: COCO's AP of boxes and masks, or VOC's.

    COCO's objects come from its ann_file, or from the dataset if it has none.
    """
    chosen = _find_evaluator(cfg)
    if chosen['type'] == 'VOCMetric':
        return [VocAP(chosen, samples.dataset.metainfo)]
    kinds = chosen.get('metric', BOXES)
    wanted = [kind for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind in (BOXES, MASKS)]
    if not wanted:
        raise InputError(f'expected {BOXES} or {MASKS} in test_evaluator.metric, got {kinds}; add one of them')
    options = {'most': chosen.get('proposal_nums', MOST), 'thresholds': chosen.get('iou_thrs')}
    truth = build_ground_truth(cfg, samples)
    return [CocoAP(truth, kind, **options) for kind in wanted]


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
