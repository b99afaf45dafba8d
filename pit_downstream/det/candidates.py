"""Candidates for detections of an mmdet detector: their logits, and predictions without score thresholds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.structures.bbox import bbox2roi
from torch import Tensor, nn

from pit_downstream.utils.errors import InputError

Inputs = dict[str, Any]  # model inputs: 'inputs' (1, 3, H, W) and 'data_samples'


def count_classes(model: nn.Module) -> int:
    """Return the number of object classes of a detector. Raises InputError if the model does not define it."""
    inner = getattr(model, 'roi_head', model)
    head = getattr(inner, 'bbox_head', None) or getattr(inner, 'mask_head', None)
    num_classes = getattr(head[-1] if isinstance(head, nn.ModuleList) else head, 'num_classes', None)
    if num_classes is None:
        raise InputError(f'expected a detector with a number of classes, got {type(model).__name__}; choose another '
                         'attack or mode')
    return num_classes


@contextmanager
def disable_score_thresholds(model: nn.Module) -> Iterator[None]:
    """Set the score thresholds of a detector to 0, so that it returns as many predictions as it may."""
    settings = {id(part): part for module in model.modules()
                for part in _find_thresholds(getattr(module, 'test_cfg', None))}
    before = {key: part['score_thr'] for key, part in settings.items()}
    for part in settings.values():
        part['score_thr'] = 0.
    try:
        yield
    finally:
        for key, part in settings.items():
            part['score_thr'] = before[key]


def _find_thresholds(cfg: object) -> Iterator[dict]:
    """Yield the parts of a test_cfg that have a score threshold."""
    if isinstance(cfg, dict):
        if 'score_thr' in cfg:
            yield cfg
        for part in cfg.values():
            yield from _find_thresholds(part)


def make_target_logits(model: nn.Module, clean: Inputs) -> Callable[[Inputs], Tensor]:
    """Return a function from inputs to logits (targets, classes), with a last column for the background if it has one.

    Raises InputError for unsupported detectors.
    """
    if isinstance(getattr(model, 'roi_head', None), StandardRoIHead) and model.with_rpn:
        detector: Any = model  # with mmdet's methods
        proposals = detector.rpn_head.predict(
            detector.extract_feat(clean['inputs']), clean['data_samples'], rescale=False)
        rois = bbox2roi([proposal.bboxes for proposal in proposals])
        return lambda data: detector.roi_head._bbox_forward(detector.extract_feat(data['inputs']), rois)['cls_score']
    if isinstance(model, DetectionTransformer):
        return lambda data: model(**data, mode='tensor')[0][-1][0]
    width = getattr(getattr(model, 'bbox_head', None), 'cls_out_channels', None)
    if width is None or hasattr(model, 'roi_head'):
        raise InputError(f'expected a detector in one or two stages or a DETR for dag, got {type(model).__name__}; '
                         'choose another attack')
    return lambda data: torch.cat([_flatten_scores(level, width) for level in model(**data, mode='tensor')[0]])


def _flatten_scores(level: Tensor, width: int) -> Tensor:
    """Reshape the scores (1, A * width, H, W) of a pyramid level to (targets, width)."""
    if level.shape[1] % width:
        raise InputError(f'expected scores apart from boxes for dag, got {level.shape[1]} channels for {width} '
                         'classes; choose another attack')
    return level[0].permute(1, 2, 0).reshape(-1, width)
