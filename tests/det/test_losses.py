"""Losses of a detector under attack, against those with which mmdet trains, and the state of the model around them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import pit_downstream.det  # noqa: F401
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmdet.utils import dist_utils
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from pit_downstream.attacks.objective import LOSS_TYPES, LossObjective, make_objective
from pit_downstream.det.annotations import set_ground_truth, to_instances
from pit_downstream.det.losses import compute_losses, is_loss_of_type, needs_masks
from pit_downstream.det.full_resolution import OriginalSizePredictor
from pit_downstream.utils.protocols import Instances
from pit_downstream.utils.rng import compute_seed
from tests.det import scenes, tiny
from tests.tolerances import assert_near

pytestmark = pytest.mark.numeric

AUXILIARY = {'loss_cls', 'loss_bbox', 'loss_iou'}
KEYS = {  # by family: every loss that mmdet returns, and those that each kind counts
    'retinanet': {'cls': {'loss_cls'}, 'box': {'loss_bbox'}},
    'fcos': {'cls': {'loss_cls', 'loss_centerness'}, 'box': {'loss_bbox'}},
    'mask_rcnn': {'cls': {'loss_rpn_cls', 'loss_cls'}, 'box': {'loss_rpn_bbox', 'loss_bbox'},
                  'rpn': {'loss_rpn_cls', 'loss_rpn_bbox'}, 'roi': {'loss_cls', 'loss_bbox', 'loss_mask'},
                  'all': {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask'}},
    'detr': {'cls': {'loss_cls'}, 'box': {'loss_bbox', 'loss_iou'}},
    'dino': {'cls': {'loss_cls', 'enc_loss_cls'}, 'box': {'loss_bbox', 'loss_iou', 'enc_loss_bbox', 'enc_loss_iou'},
             'rpn': {'enc_loss_cls', 'enc_loss_bbox', 'enc_loss_iou'}, 'roi': AUXILIARY,
             'all': AUXILIARY | {f'enc_{key}' for key in AUXILIARY}},
}
NEVER = {'mask_rcnn': {'acc'}, 'detr': {f'd0.{key}' for key in AUXILIARY},
         'dino': {f'{layer}{dn}{key}' for layer in ('', 'd0.') for dn in ('', 'dn_') for key in AUXILIARY} - AUXILIARY}


@pytest.fixture(params=tiny.FAMILIES)
def family(request):
    return request.param


def batch_of(predictor, samples, *places):
    return predictor.collate([samples[place] for place in places or range(len(samples))])


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}, [
        (module.training, *module._modules) for module in model.modules()]


def test_which_losses_count(detectors, family):
    predictor, samples = detectors(family)
    batch = batch_of(predictor, samples, 1)
    (_, data), = predictor.model_inputs(batch.images, batch)
    set_ground_truth(data['data_samples'][0], batch.samples[0].target.instances, predictor.device,
                     masks=family == 'mask_rcnn')
    found = compute_losses(predictor.model, data, seed=compute_seed(0, batch.samples[0].id, 'loss'))
    expected = {'all': KEYS[family]['cls'] | KEYS[family]['box'], 'rpn': set(), 'roi': set()} | KEYS[family]
    assert set(found) == expected['all'] | NEVER.get(family, set())
    for kind in LOSS_TYPES:
        assert {key for key in found if is_loss_of_type(key, kind, found)} == expected[kind], kind
        if expected[kind]:
            total = predictor.loss(batch.images, batch, kind)
            assert_near(total, sum(found[key] for key in expected[kind])[None], 'network')


@pytest.mark.parametrize('key, kinds', [
    ('loss_obj', 'cls'), ('loss_conf', 'cls'), ('loss_center_heatmap', 'cls'), ('det_loss', 'cls'), ('loss_dfl', 'box'),
    ('loss_xy', 'box'), ('off_loss', 'box'), ('s2.loss_bbox', 'box'), ('loss_mask_iou', ''), ('pull_loss', ''),
    ('d4.loss_cls', None), ('dn_loss_bbox', None), ('aux_loss_cls', None), ('s0.acc', None)])
def test_words_of_losses(key, kinds):
    found = [kind for kind in ('all', 'cls', 'box', 'rpn') if is_loss_of_type(key, kind, [key])]
    assert found == ([] if kinds is None else ['all', *kinds.split()])


@pytest.mark.parametrize('family', ['retinanet', 'fcos'])
def test_equals_the_loss_with_which_mmdet_trains(folder, detectors, family):
    """The oracle goes mmdet's way: annotations loaded before the resize, the whole model in training mode, its batch
    norms in evaluation as ResNet's norm_eval has it; here the pipeline loads them after the resize, or not at all."""
    predictor, samples = detectors(family)
    load, resize, truth, pack = scenes.PIPELINE
    cfg = tiny.config(folder, family, pipeline=[load, truth, resize, pack])
    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    bare = tiny.detector(folder, family, pipeline=[load, resize, pack])[0]
    for place in range(5):
        batch = batch_of(predictor, samples, place)
        items = [dataset[i] for i in range(5) if str(dataset[i]['data_samples'].img_id) == batch.samples[0].id]
        model = predictor.model.train()
        try:
            losses = model(**model.data_preprocessor(pseudo_collate(items), False), mode='loss')
            wanted, _ = model.parse_losses(losses)
        finally:
            model.eval()
        assert_near(predictor.loss(batch.images, batch), wanted[None], 'network')
        again = batch_of(bare, samples, place)
        assert_near(bare.loss(again.images, again), wanted[None], 'network')


def test_gradients_reach_the_image_alone_and_the_model_stays_as_it_is(detectors, family):
    predictor, samples = detectors(family)
    batch = batch_of(predictor, samples)
    before = state(predictor.model)
    images = batch.images.clone().requires_grad_()
    losses = predictor.loss(images, batch)
    slope, = torch.autograd.grad(losses.sum(), images)
    assert losses.shape == (5,) and losses.isfinite().all() and slope.isfinite().all()
    assert all(one.any() for one in slope * batch.valid)
    seen = LossObjective(predictor, batch, 'all').evaluate(batch.images, torch.arange(5))
    assert not (seen.gradient * ~batch.valid).any()
    after = state(predictor.model)
    assert after[1] == before[1] and not predictor.model.training
    assert all(torch.equal(before[0][name], value) for name, value in after[0].items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in predictor.model.parameters())


@pytest.mark.parametrize('family', ['retinanet', 'fcos', 'detr'])
def test_gradients_are_the_slope_of_the_loss(detectors, family):
    """By finite differences along the gradient; with one image DETR's tokens hand batch norm a gradient with strides
    that PyTorch's CPU kernel reads wrongly. (Others let no gradient through where their proposals lie.)"""
    predictor, samples = detectors(family)
    batch = batch_of(predictor, samples, 1)
    images = batch.images.clone().requires_grad_()
    slope, = torch.autograd.grad(predictor.loss(images, batch).sum(), images)
    along = 1e-3 * slope / slope.norm()
    with torch.no_grad():
        rise = (predictor.loss(batch.images + along, batch) - predictor.loss(batch.images - along, batch)).item() / 2e-3
    assert rise == pytest.approx(slope.norm().item(), rel=.05)


def test_an_images_loss_is_its_own_and_the_same_every_time(detectors, family):
    """Dropout is off (DETR has some), samplers and denoising draw by the image's id (Mask R-CNN's picks 16 of 1500)."""
    predictor, samples = detectors(family)
    torch.manual_seed(3)
    together = batch_of(predictor, samples, 0, 2, 1)
    first = predictor.loss(together.images, together)
    drawn = torch.rand(2)
    alone = batch_of(predictor, samples, 1)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(2), drawn)  # nobody's numbers were taken
    assert_near(predictor.loss(alone.images, alone)[0], first[2], 'network')


@pytest.mark.parametrize('parts, kinds', [
    (dict(with_mask=True), LOSS_TYPES),  # CondInst, SOLO: one loss() asks for all that there is
    (dict(with_mask=True, roi_head=None), ('all', 'roi')), (dict(with_mask=False), ())])
def test_masks_are_required_where_losses_need_them(parts, kinds):
    model = SimpleNamespace(**parts)
    assert tuple(kind for kind in LOSS_TYPES if needs_masks(model, kind)) == kinds


def test_samplers_follow_the_seed(detectors):
    predictor, samples = detectors('mask_rcnn')
    batch = batch_of(predictor, samples, 1)
    first = predictor.loss(batch.images, batch, 'rpn')
    predictor.seed = 1
    try:
        assert not torch.equal(predictor.loss(batch.images, batch, 'rpn'), first)
    finally:
        predictor.seed = 0


def test_other_ranks_are_not_waited_for(detectors, monkeypatch):
    predictor, samples = detectors('fcos')
    batch = batch_of(predictor, samples, 1)
    wanted = predictor.loss(batch.images, batch)
    monkeypatch.setattr(dist_utils, 'dist', SimpleNamespace(is_available=lambda: True, is_initialized=lambda: True))
    assert torch.equal(predictor.loss(batch.images, batch), wanted)
    assert dist_utils.dist.is_initialized()


def test_loss_type_missing_from_detector(detectors):
    predictor, samples = detectors('retinanet')
    batch = batch_of(predictor, samples, 1)
    with pytest.raises(ValueError, match='expected losses of type rpn from the detector, got loss_cls, loss_bbox;'):
        predictor.loss(batch.images, batch, 'rpn')
    with pytest.raises(ValueError, match="loss is one of all, cls, box, rpn, roi for a detector, got 'everything'"):
        make_objective(predictor, batch, 'everything')
    assert make_objective(predictor, batch, 'cls').more == ('cls',)
    assert make_objective(predictor, batch, 'ce').more == ('all',)  # a classifier's default


def test_objects_in_network_pixels_by_hand():
    """Raw 40 x 30 (width x height), twice as wide and three times as high in the network, 80 x 90 in 96 x 96."""
    about = {'ori_shape': (30, 40), 'scale_factor': (2., 3.), 'network_shape': (96, 96), 'batch_input_shape': (96, 128)}
    data_sample = DetDataSample(metainfo=about)
    square = [[10, 10, 20, 10, 20, 20, 10, 20]]
    every = Instances([{'bbox': [10, 10, 20, 20], 'bbox_label': 1, 'ignore_flag': 0, 'mask': square},
                       {'bbox': [30, 25, 50, 35], 'bbox_label': 0, 'ignore_flag': 1, 'mask': square}])
    set_ground_truth(data_sample, every, torch.device('cpu'), masks=True)
    there = data_sample.gt_instances
    assert there.bboxes.tolist() == [[20, 30, 40, 60]] and there.labels.tolist() == [1]
    assert data_sample.ignored_instances.bboxes.tolist() == [[60, 75, 80, 90]]  # cut where the image ends
    mask = data_sample.gt_instances.masks.masks
    assert mask.shape == (1, 96, 128) and abs(int(mask.sum()) - 20 * 30) <= 50 and mask[0, 32:58, 22:38].all()
    set_ground_truth(data_sample, Instances(), torch.device('cpu'), masks=True)
    assert data_sample.gt_instances.bboxes.shape == (0, 4) and len(data_sample.gt_instances.masks) == 0
    with pytest.raises(ValueError, match='expected masks in the annotations for the losses of a detector with masks'):
        set_ground_truth(data_sample, Instances([{'bbox': [0, 0, 1, 1], 'bbox_label': 0, 'ignore_flag': 0}]),
                  torch.device('cpu'), masks=True)


def test_detections_can_be_ground_truth(detectors):
    """Masks too, through run lengths and back."""
    predictor, samples = detectors('mask_rcnn')
    batch = batch_of(predictor, samples, 1)
    found = predictor.predict(batch.images, batch).predictions[0].pred_instances
    least = found.scores.sort().values[len(found) // 2].item()
    seen = to_instances(found, min_score=least)
    assert 0 < len(seen) == (found.scores >= least).sum() < len(found)
    assert np.allclose(seen[0]['bbox'], found.bboxes[0].tolist()) and 'counts' in seen[0]['mask']
    assert predictor.loss(batch.images, batch, 'all', [seen]).isfinite().all()


def test_at_original_size(folder, detectors):
    """The network sees what OpenCV's resize makes, to rounding; gradients reach the raw image alone."""
    predictor, samples = detectors('retinanet')
    original = OriginalSizePredictor(predictor)
    batch, seen = (batch_of(one, samples) for one in (original, predictor))
    assert original.name == predictor.name.replace('retinanet(', "retinanet(at='original', ")
    assert batch.images.shape == (5, 3, 64, 64) and batch.valid.sum((1, 2, 3)).tolist() == [
        40 * 40, *[48 * 64] * 3, 64 * 48]
    for image, raw in zip(batch.images, [samples[place].image for place in range(5)], strict=True):
        assert torch.equal(image[:, :raw.shape[1], :raw.shape[2]], raw / torch.tensor(255.))
    for (_, ours), (_, theirs) in zip(original.model_inputs(batch.images, batch),
                                      predictor.model_inputs(seen.images, seen), strict=True):
        assert (ours['inputs'] - theirs['inputs']).abs().max() < 1 / 57  # a level
    images = batch.images.clone().requires_grad_()
    slope, = torch.autograd.grad(original.loss(images, batch).sum(), images)
    assert not slope[~batch.valid.expand_as(slope)].any() and all(one.any() for one in slope)
    found, wanted = original.predict(batch.images, batch), predictor.predict(seen.images, seen)
    assert [one.ori_shape for one in found.predictions] == [one.ori_shape for one in wanted.predictions]
