"""Average precisions of detections made by hand, counted by hand; and of random ones, against mmdet's own metrics."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import pit_downstream.det  # noqa: F401
from mmdet.evaluation.metrics import CocoMetric
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from pit_downstream.results.outcomes import Entry, Identity, Outcomes, OutcomeStore
from pit_downstream.utils.protocols import Outputs
from pit_downstream.det import metric as room
from pit_downstream.det import ground_truth as truth_room
from pit_downstream.det.metric import MASKS, CocoAP, build_metric
from pit_downstream.det.samples import build_detection_samples
from pit_downstream.det.ground_truth import GroundTruth, load_coco_tools
from tests.det import scenes

FRACTIONS = {1: 101, .75: 76, .5: 51, .25: 26}  # of the 101 points of recall, how many lie at or below


@pytest.fixture(scope='module')
def truth(folder):
    return GroundTruth.of_file(str(folder / 'annotations.json'), scenes.CLASSES)


def found(image, boxes, labels, scores, **more):
    """A prediction. boxes: (left, top, width, height)."""
    corners = torch.tensor(boxes, dtype=torch.float32).view(-1, 4).clone()
    corners[:, 2:] += corners[:, :2]
    sample = DetDataSample(metainfo={'img_id': image})
    sample.pred_instances = InstanceData(bboxes=corners, labels=torch.tensor(labels, dtype=torch.long),
                                         scores=torch.tensor(scores, dtype=torch.float32), **more)
    return sample


def right(image, **more):
    """Exactly the objects of an image."""
    mine = [one for one in scenes.OBJECTS if one[0] == image]
    return found(image, [one[2:] for one in mine], [scenes.CLASSES.index(one[1]) for one in mine], [.9] * len(mine),
                 **more)


def computed(metric, predictions):
    """Return the numbers by name, after the detections were stored as the evaluator does."""
    ids = sorted({prediction.img_id for prediction in predictions})
    samples = SimpleNamespace(info=lambda index: {'img_id': ids[index]})
    store, identity = OutcomeStore(None), Identity('m', 'd', 0, len(ids))
    for prediction in predictions:  # in batches of one, in any order
        values = metric.measure(Outputs([prediction]), None)
        store.append(identity, [Entry('clean', np.array([ids.index(prediction.img_id)]), values)])
    numbers = metric.compute(store.read(identity).get('clean', Outcomes(0)), samples)
    assert {value.count for value in numbers} == {len(ids)}
    return {value.metric: value.value for value in numbers}


def test_all_objects_found(truth):
    metric = CocoAP(truth)
    values = computed(metric, [right(image) for image in (10, 11, 12, 13, 14)])
    # none has the 9216 pixels of a large one
    assert values == pytest.approx({'AP_small': 1, 'AP_medium': 1, 'AP75': 1, 'AP50': 1, 'AP': 1}, abs=1e-12)
    assert list(values)[-1] == metric.record_name == 'AP'


def test_counted_by_hand(truth):
    """Of three cups two are found, the second with an IoU of 0.64; of two bowls the one of image 11."""
    first, second = right(12), found(14, [(10, 8, 32, 36)], [0], [.8])  # 32 of 50 columns
    metric = CocoAP(truth)
    values = computed(metric, [found(10, [], [], []), right(11), first, found(13, [], [], []), second])
    cups = (3 * 67 + 7 * 34) / 10 / 101  # 0.50, 0.55, 0.60: recall 2/3; above: 1/3, that is 67 and 34 points of 101
    assert values['AP'] == pytest.approx((cups + 51 / 101) / 2, abs=1e-12)
    assert values['AP50'] == pytest.approx((67 + 51) / 202, abs=1e-12)
    assert values['AP75'] == pytest.approx((34 + 51) / 202, abs=1e-12)


def test_nothing_found_is_zero_and_no_image_is_an_error(truth):
    assert computed(CocoAP(truth), [found(image, [], [], []) for image in (10, 11, 12)])['AP'] == 0
    with pytest.raises(ValueError, match='no image has a value'):
        CocoAP(truth).compute(Outcomes(3), None)
    with pytest.raises(ValueError, match='the 1 images have no objects'):
        computed(CocoAP(truth), [found(13, [], [], [])])


def test_only_the_images_that_were_shown_count(truth):
    metric = CocoAP(truth)
    assert computed(metric, [right(11)])['AP'] == pytest.approx(1, abs=1e-12)


def test_an_image_shown_twice_counts_once(truth):
    """As when a sampler pads the last batch."""
    assert computed(CocoAP(truth), [right(10), right(11), found(10, [], [], [])])['AP'] == 1


def test_scores_that_are_no_numbers_and_unknown_labels_are_refused(truth):
    with pytest.raises(ValueError, match='scores must be finite, got NaN or infinity in image 10. Check the weights'):
        CocoAP(truth).measure(Outputs([found(10, [(0, 0, 9, 9)], [0], [float('nan')])]), None)
    with pytest.raises(ValueError, match='labels must be of the 2 classes of the dataset, got 79. Set metainfo'):
        CocoAP(truth).measure(Outputs([found(10, [(0, 0, 9, 9)], [79], [.5])]), None)  # at the first image that has one


def test_masks(truth):
    """A perfect box with half a mask: IoU 0.5 for masks, 1 for boxes."""
    mask = torch.zeros(1, 64, 48, dtype=torch.bool)
    mask[0, 10:30, 5:35] = True
    half = right(11, masks=mask)
    assert computed(CocoAP(truth), [half])['AP'] == pytest.approx(1, abs=1e-12)
    values = computed(CocoAP(truth, [MASKS]), [half])
    assert values['mask_AP50'] == pytest.approx(1, abs=1e-12) and values['mask_AP75'] == 0
    assert values['mask_AP'] == pytest.approx(.1, abs=1e-12) and list(values)[-1] == 'mask_AP'
    both = computed(CocoAP(truth, ['bbox', MASKS]), [half])
    assert both == computed(CocoAP(truth), [half]) | values and list(both)[-1] == 'mask_AP'
    with pytest.raises(ValueError, match='mask AP needs masks, and the detector has boxes alone'):
        computed(CocoAP(truth, [MASKS]), [right(11)])


def guesses(seed):
    """Twelve boxes in each image, some near objects."""
    random, taken = np.random.default_rng(seed), []
    for index, (width, height) in enumerate(scenes.SIZES):
        mine = [one for one in scenes.OBJECTS if one[0] == 10 + index]
        near = [(np.array(one[2:]) + random.normal(0, 2, 4)).tolist() for one in mine]
        far = (random.uniform(0, .5, (12 - len(near), 4)) * [width, height, width, height] + 1).tolist()
        labels = [scenes.CLASSES.index(one[1]) for one in mine] + random.integers(0, 2, len(far)).tolist()
        masks = torch.zeros(12, height, width, dtype=torch.bool)
        for mask, (left, top, wide, high) in zip(masks, np.maximum(near + far, 0).astype(int), strict=True):
            mask[top:top + high, left:left + wide] = True
        taken.append(found(10 + index, near + far, labels, random.random(12).tolist(), masks=masks))
        taken[-1].set_metainfo({'ori_shape': (height, width)})
    return taken


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_equals_mmdets_metric(folder, truth, kind, monkeypatch):
    """mmdet rounds to three digits, so its rounding is taken out."""
    monkeypatch.setattr('mmdet.evaluation.metrics.coco_metric.round', lambda value, digits: value, raising=False)
    theirs = CocoMetric(ann_file=str(folder / 'annotations.json'), metric=kind)
    theirs.dataset_meta = {'classes': scenes.CLASSES}
    theirs.process({}, [one.to_dict() for one in guesses(0)])
    wanted = theirs.compute_metrics(theirs.results)
    values = computed(CocoAP(truth, [kind]), guesses(0))
    prefix = 'mask_' if kind == 'segm' else ''
    for name, key in (('AP', 'mAP'), ('AP50', 'mAP_50'), ('AP75', 'mAP_75'), ('AP_small', 'mAP_s')):
        assert values[prefix + name] == pytest.approx(wanted[f'{kind}_{key}'], abs=1e-12)
    assert 0 < values[f'{prefix}AP50'] < 1


def test_the_evaluators_own_counts_and_thresholds_are_taken(folder):
    cfg = scenes.coco_config(folder, metric=['bbox', 'segm'])
    cfg.test_evaluator.update(proposal_nums=(100, 1, 10), iou_thrs=[.5])
    metric = build_metric(cfg, build_detection_samples(cfg))
    assert (metric.names, metric.max_detections) == (('AP', 'mask_AP'), [100, 1, 10])
    values = computed(metric, guesses(1))
    assert values['AP'] == values['AP50'] and 'mask_AP' in values


@pytest.mark.parametrize('evaluator, words', [
    (dict(type='CocoMetric', metric=['proposal']), 'expected bbox or segm in test_evaluator.metric, got .*proposal'),
    ([dict(type='LVISMetric'), dict(type='DumpResults')], 'expected CocoMetric or VOCMetric as test_evaluator, got '
                                                          'LVISMetric, DumpResults; to measure'),
    (None, 'expected CocoMetric or VOCMetric as test_evaluator, got none')])
def test_evaluators_that_measure_no_ap_are_refused(folder, evaluator, words):
    cfg = scenes.coco_config(folder)
    cfg.test_evaluator = evaluator
    with pytest.raises(ValueError, match=words):
        build_metric(cfg, build_detection_samples(cfg))


def test_without_annotation_file_the_dataset_is_used(folder):
    cfg = scenes.coco_config(folder)
    samples = build_detection_samples(cfg)
    with_file = build_metric(cfg, samples)
    cfg.test_evaluator.pop('ann_file')
    without = build_metric(cfg, samples)
    assert without.truth.category_ids == (0, 1)
    assert computed(with_file, guesses(2)) == computed(without, guesses(2))


def test_vocs_ap_is_eleven_points_at_iou_one_half(tmp_path):
    """One of three cups first, then a wrong one: precision 1 up to recall 1/3, which are 4 of 11 points; the bowls: one
    of two, 6 points."""
    cfg = scenes.voc_config(scenes.voc_folder(tmp_path / 'data'))
    samples = build_detection_samples(cfg)
    metric = build_metric(cfg, samples)
    predictions = []
    for index in range(5):
        sample = samples[index]
        known = samples.pipeline.pack(sample.image, sample.target)[1]
        one = {'11': right(11), '12': found('12', [(0, 0, 32, 32), (0, 40, 5, 5)], [0, 0], [.9, .8])}.get(
            sample.id, found(sample.id, [], [], []))
        known.pred_instances = one.pred_instances
        for kind in (known.gt_instances, known.ignored_instances):
            kind.bboxes = kind.bboxes.tensor  # as the data preprocessor makes them
        predictions.append(known)
    values = computed(metric, predictions)
    assert metric.name == 'AP50' and values == {'AP50': pytest.approx((4 / 11 + 6 / 11) / 2, abs=1e-6)}


def test_other_metrics_are_refused(folder):
    cfg = scenes.coco_config(folder)
    cfg.test_evaluator.type = 'LVISMetric'
    with pytest.raises(ValueError, match='expected CocoMetric or VOCMetric as test_evaluator, got LVISMetric; .*'
                                         '--cfg-options test_evaluator.type=CocoMetric'):
        build_metric(cfg, build_detection_samples(cfg))


def test_which_tools_count():
    faster = importlib.util.find_spec('faster_coco_eval') is not None
    assert load_coco_tools()[2].startswith('faster-coco-eval ' if faster else 'pycocotools ')


@pytest.mark.skipif(not importlib.util.find_spec('faster_coco_eval'), reason='faster-coco-eval is not installed')
@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_faster_coco_eval_gives_the_same(folder, kind, monkeypatch):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    path = str(folder / 'annotations.json')
    fast = computed(CocoAP(GroundTruth.of_file(path, scenes.CLASSES), [kind]), guesses(3))
    for module in (room, truth_room):
        monkeypatch.setattr(module, 'load_coco_tools', lambda: (COCO, COCOeval, 'pycocotools'))
    slow = computed(CocoAP(GroundTruth.of_file(path, scenes.CLASSES), [kind]), guesses(3))
    assert fast == pytest.approx(slow, abs=1e-9) and 0 < slow[list(slow)[-1]] < 1
