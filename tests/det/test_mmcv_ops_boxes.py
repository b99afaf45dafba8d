"""nms, soft-nms, nms_match and bbox_overlaps against compiled mmcv, torchvision and loops written out."""
import math

import numpy as np
import pytest
import torch
import torchvision

from tests.det.mmcv_reference import FILE, equal, reference

from mmcv import ops  # isort: skip  (after install)

pytestmark = pytest.mark.numeric

METHODS = ('naive', 'linear', 'gaussian')


def random_boxes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(2, count, 2, generator=generator)
    return torch.cat([corner * 50, corner * 50 + size * 30], 1), torch.rand(count, generator=generator)


def naive_iou(a, b, offset):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    area = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
    union = area[0] + area[1] - width * height
    return width * height / union if union else 0.0


def naive_nms(boxes, scores, threshold, offset):
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if all(naive_iou(boxes[i], boxes[j], offset) <= threshold for j in kept):
            kept.append(i)
    return kept


def naive_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    left, kept = dict(enumerate(scores)), []
    while left:
        best = max(left, key=left.get)
        kept.append((best, left.pop(best)))
        for i in list(left):
            overlap = naive_iou(boxes[best], boxes[i], offset)
            if method == 'gaussian':
                left[i] *= math.exp(-overlap**2 / sigma)
            elif overlap >= threshold:
                left[i] *= 1 - overlap if method == 'linear' else 0
            if left[i] < min_score:
                del left[i]
    return kept


@pytest.mark.parametrize('offset', [0, 1])
def test_nms_equals_compiled_mmcv(offset):
    dets, inds = ops.nms(reference('nms_boxes'), reference('nms_scores'), 0.5, offset=offset)
    equal(dets, reference(f'nms_offset{offset}_dets'))
    equal(inds, reference(f'nms_offset{offset}_inds'))


def test_nms_with_score_threshold_and_limit_equals_compiled_mmcv():
    dets, inds = ops.nms(reference('nms_boxes'), reference('nms_scores'), 0.4, score_threshold=0.3, max_num=20)
    equal(dets, reference('nms_thr_max_dets'))
    equal(inds, reference('nms_thr_max_inds'))


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.1, 0.5, 0.9])
def test_nms_equals_the_loop(offset, threshold):
    boxes, scores = random_boxes(120, seed=offset)
    _, inds = ops.nms(boxes.double(), scores.double(), threshold, offset=offset)
    assert inds.tolist() == naive_nms(boxes.tolist(), scores.tolist(), threshold, offset)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_nms_takes_low_precision(dtype):
    boxes, scores = (tensor.to(dtype) for tensor in random_boxes(50, seed=2))
    _, inds = ops.nms(boxes, scores, 0.5)
    assert inds.tolist() == torchvision.ops.nms(boxes.float(), scores.float(), 0.5).tolist()


def test_nms_compares_with_the_threshold_in_the_boxes_precision():
    """IoU is 3/5; in float32 that is above the double 0.6, and mmcv's threshold is a float."""
    boxes = torch.tensor([[0.0, 0, 5, 1], [0.0, 0, 3, 1]])
    assert ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.6)[1].tolist() == [0, 1]


def test_nms_numpy_and_empty():
    boxes, scores = random_boxes(20, seed=3)
    dets, inds = ops.nms(boxes.numpy(), scores.numpy(), 0.5)
    assert isinstance(dets, np.ndarray) and dets.shape == (len(inds), 5)
    dets, inds = ops.nms(boxes[:0], scores[:0], 0.5)
    assert dets.shape == (0, 5) and inds.shape == (0,)
    dets, inds = ops.soft_nms(boxes[:0], scores[:0])
    assert dets.shape == (0, 5) and inds.shape == (0,) and inds.dtype == torch.int64


@pytest.mark.parametrize('method', METHODS)
def test_soft_nms_equals_compiled_mmcv(method):
    dets, inds = ops.soft_nms(reference('nms_boxes'), reference('nms_scores'), 0.3, sigma=0.5, min_score=1e-3,
                              method=method)
    equal(dets, reference(f'softnms_{method}_dets'))
    equal(inds, reference(f'softnms_{method}_inds'))


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', METHODS)
def test_soft_nms_equals_the_loop(method, offset):
    boxes, scores = (tensor.double() for tensor in random_boxes(60, seed=4))
    before = boxes.clone(), scores.clone()
    dets, inds = ops.soft_nms(boxes, scores, 0.3, 0.4, 0.05, method, offset)
    expected = naive_soft_nms(boxes.tolist(), scores.tolist(), 0.3, 0.4, 0.05, method, offset)
    assert inds.tolist() == [index for index, _ in expected]
    equal(dets[:, 4], torch.tensor([score for _, score in expected], dtype=torch.float64))
    equal(dets[:, :4], boxes[inds])
    assert torch.equal(boxes, before[0]) and torch.equal(scores, before[1])


def test_soft_nms_unknown_method():
    from mmcv import _ext
    with pytest.raises(ValueError, match=r'method is 0 \(naive\), 1 \(linear\) or 2 \(gaussian\), got 3'):
        _ext.softnms(*random_boxes(4, 0), torch.empty(4, 5), 0.5, 0.5, 0.0, 3, 0)


def test_batched_nms_equals_compiled_mmcv():
    args = reference('nms_boxes'), reference('nms_scores'), reference('nms_idxs')
    for config, dets_key, keep_key in (
            (dict(type='nms', iou_threshold=0.5), 'batched_dets', 'batched_keep'),
            (dict(type='soft_nms', iou_threshold=0.5, min_score=0.05), 'batched_soft_dets', 'batched_soft_keep')):
        dets, keep = ops.batched_nms(*args, config)
        equal(dets, reference(dets_key))
        equal(keep, reference(keep_key))


def test_batched_nms_in_pieces_equals_torchvision():
    boxes, scores = random_boxes(80, seed=5)
    labels = torch.arange(80) % 3
    _, keep = ops.batched_nms(boxes, scores, labels, dict(type='nms', iou_threshold=0.5, split_thr=10))
    assert keep.tolist() == torchvision.ops.batched_nms(boxes, scores, labels, 0.5).tolist()


def test_nms_match_equals_compiled_mmcv():
    groups = ops.nms_match(torch.cat([reference('nms_boxes'), reference('nms_scores')[:, None]], 1), 0.5)
    assert [int(group[0]) for group in groups] == FILE['nms_match_first'].tolist()
    assert [len(group) for group in groups] == FILE['nms_match_sizes'].tolist()


def test_nms_match_groups_by_the_suppressing_box():
    """Three boxes of IoU 1/2 in a row by hand: equality suppresses, and the third overlaps only the second."""
    dets = np.array([[0, 0, 2, 1, 0.5], [0, 0, 1, 1, 0.9], [1, 0, 2, 1, 0.7], [8, 8, 9, 9, 0.8]], np.float32)
    assert [group.tolist() for group in ops.nms_match(dets, 0.5)] == [[1, 0], [3], [2]]


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('mode', ['iou', 'iof'])
def test_bbox_overlaps_equals_the_loop(mode, offset):
    first, second = (random_boxes(count, seed=6 + count)[0].double() for count in (7, 9))
    actual = ops.bbox_overlaps(first, second, mode, offset=offset)

    def expected(a, b):
        if mode == 'iou':
            return naive_iou(a, b, offset)
        area = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
        iou = naive_iou(a, b, offset)  # intersection = iou * (sum of areas) / (1 + iou)
        return iou * sum(area) / (1 + iou) / area[0]

    table = torch.tensor([[expected(a, b) for b in second.tolist()] for a in first.tolist()], dtype=torch.float64)
    equal(actual, table)
    equal(ops.bbox_overlaps(first, second[:7], mode, aligned=True, offset=offset), table[:, :7].diagonal())
    if mode == 'iou' and offset == 0:
        equal(actual, torchvision.ops.box_iou(first, second))


def test_bbox_overlaps_is_no_part_of_a_graph():
    boxes = random_boxes(4, seed=1)[0].requires_grad_()
    assert not ops.bbox_overlaps(boxes, boxes).requires_grad
