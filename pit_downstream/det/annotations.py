"""Objects of an image, converted from raw-image pixels to network pixels for mmdet's losses."""

import numpy as np
import torch
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmengine.structures import InstanceData
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Instances


def to_instances(predictions: InstanceData, *, min_score: float) -> Instances:
    """Convert detections with a score of `min_score` or more to objects, in pixels of the raw image."""
    predictions = predictions[predictions.scores >= min_score].cpu()
    instances = [{'bbox': box, 'bbox_label': label, 'ignore_flag': 0}
                 for box, label in zip(predictions.bboxes.tolist(), predictions.labels.tolist(), strict=True)]
    if 'masks' in predictions:
        masks = predictions.masks
        masks = masks.numpy() if isinstance(masks, Tensor) else np.asarray(masks)
        for instance, rle in zip(instances, encode_mask_results(masks), strict=True):
            instance['mask'] = {**rle, 'counts': rle['counts'].decode()}
    return Instances(instances)


def get_image_region(data_sample: DetDataSample, height: int, width: int) -> tuple[slice, slice]:
    """Return the rows and columns of a network image of this size that are the image itself, without padding."""
    if 'border' in data_sample:  # set by RandomCenterCropPad (CenterNet, CornerNet)
        top, bottom, left, right = (int(side) for side in data_sample.border)
        return slice(top, bottom), slice(left, right)
    across, down = data_sample.get('scale_factor', (1., 1.))[:2]
    rows, columns = data_sample.ori_shape[:2]
    return slice(0, min(height, round(rows * down))), slice(0, min(width, round(columns * across)))


def set_ground_truth(data_sample: DetDataSample, instances: Instances, device: torch.device, *, masks: bool) -> None:
    """Set gt_instances and ignored_instances of a data sample in place, in network pixels.

    Boxes are scaled by the pipeline's scale_factor, whether or not the pipeline loads annotations. If it loads them
    after the resize, as in most configs, its boxes are in raw pixels.
    """
    loaded = {'instances': [dict(one) for one in instances], 'ori_shape': data_sample.ori_shape[:2]}
    if masks and any('mask' not in one for one in instances):
        raise InputError('expected masks in the annotations for the losses of a detector with masks, got boxes alone; '
                         'give another dataset, or the config of a detector without masks')
    LoadAnnotations(with_bbox=True, with_mask=masks, box_type=None).transform(loaded)
    rows, columns = get_image_region(data_sample, *data_sample.network_shape)
    boxes = torch.from_numpy(_transform_boxes(loaded['gt_bboxes'], data_sample, rows, columns)).to(device)
    labels = torch.from_numpy(loaded['gt_bboxes_labels']).to(device)
    every = InstanceData(bboxes=boxes, labels=labels)
    if masks:
        size = rows.stop - rows.start, columns.stop - columns.start
        every.masks = loaded['gt_masks'].resize(size).pad(data_sample.batch_input_shape)
    ignored = loaded['gt_ignore_flags'].astype(bool)
    data_sample.gt_instances = every[np.flatnonzero(~ignored)]
    data_sample.ignored_instances = every[np.flatnonzero(ignored)]


def _transform_boxes(boxes: np.ndarray, data_sample: DetDataSample, rows: slice, columns: slice) -> np.ndarray:
    """Convert boxes (n, 4) from raw-image to network pixels, clipped to the image."""
    across, down = data_sample.get('scale_factor', (1., 1.))[:2]
    start = np.array([columns.start, rows.start] * 2, np.float32)
    stop = np.array([columns.stop, rows.stop] * 2, np.float32)
    return np.clip(boxes * np.array([across, down] * 2, np.float32) + start, start, stop)
