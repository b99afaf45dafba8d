"""Detectors dressed for measuring, against mmdet's own way from file to boxes; and their inputs by hand."""

import copy
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import pit_downstream.det  # noqa: F401
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from pit_downstream.det.config_utils import use_bundled
from pit_downstream.results.records import get_model_key
from pit_downstream.det.predictor import DetectorPredictor, build_detector
from pit_downstream.det.samples import build_detection_samples
from tests.det import scenes, tiny
from tests.tolerances import assert_near

ROOT = Path(__file__).parents[2] / 'configs'
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of mmdet's ImageNet configs, RGB


def bundled(name, root, **changes):
    cfg = Config.fromfile(ROOT / name)
    use_bundled(cfg, str(root))
    cfg.merge_from_dict(changes)
    return cfg


@pytest.fixture(scope='module')
def retinanet(few_shapes):
    cfg = bundled('retinanet_pit_ti.py', few_shapes, **{'model.test_cfg.score_thr': 0.})
    return build_detector(cfg, 'random', config='retinanet_pit_ti')


def with_pipeline(predictor, cfg):
    """The same model behind the pipeline of another config."""
    return DetectorPredictor(predictor.model, build_detection_samples(cfg).pipeline, name='other')


def found_by(predictor, samples):
    batch = predictor.collate(samples)
    return predictor.predict(batch.images, batch).predictions


def equal(one, other):
    one, other = one.pred_instances, other.pred_instances
    assert set(one.keys()) == set(other.keys()) and len(one) == len(other)
    return all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in one.keys())


def test_uint8_levels_survive_the_way_to_one_and_back():
    levels = torch.arange(256).float()
    assert torch.equal(levels / torch.tensor(255.) * torch.tensor(255.), levels)


@pytest.mark.parametrize('name, changes', [
    ('retinanet_pit_ti.py', {'model.test_cfg.score_thr': 0.}),
    ('mask_rcnn_pit_s.py', {'model.test_cfg.rcnn.score_thr': 0., 'model.test_cfg.rpn.nms_pre': 50,
                            'model.test_cfg.rpn.max_per_img': 20, 'model.backbone.arch': 'ti',
                            'model.neck.in_channels': [64, 128, 256]}),
    ('detr_pit_s.py', {'model.backbone.arch': 'ti', 'model.neck.in_channels': [128]}),
])
def test_finds_bit_for_bit_what_mmdets_test_step_finds(few_shapes, name, changes):
    """The oracle goes mmdet's way: its dataset with the whole pipeline, its collate, its test_step."""
    cfg = bundled(name, few_shapes, **changes)
    predictor = build_detector(cfg, 'random', config='x')
    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    wanted = {str(one.img_id): one for one in predictor.model.test_step(pseudo_collate([dataset[i] for i in range(4)]))}
    samples = build_detection_samples(cfg)
    chosen = [samples[index] for index in range(4)]
    found = found_by(predictor, chosen)
    assert sum(len(one.pred_instances) for one in found) > 10
    for sample, one in zip(chosen, found, strict=True):
        assert equal(one, wanted[sample.id]) and one.ori_shape == (128, 128)


@pytest.mark.numeric
def test_a_batch_of_different_sizes_finds_what_each_image_finds_alone(retinanet, tmp_path):
    """In float64, where the order of nearly equal scores is that of the model."""
    cfg = scenes.coco_config(scenes.coco_folder(tmp_path / 'data'))
    samples = build_detection_samples(cfg)
    predictor = DetectorPredictor(copy.deepcopy(retinanet.model).double(), samples.pipeline, name='other')
    every = [samples[index] for index in range(5)]
    batch = predictor.collate(every)
    assert [sample.id for sample in batch.samples] == ['13', '10', '12', '14', '11']
    # 40 x 40 -> 80 x 80, 48 x 64 -> 72 x 96, 64 x 48 -> 96 x 72 within 96 x 80
    assert batch.images.shape == (5, 3, 96, 96) and batch.valid.sum((1, 2, 3)).tolist() == [
        80 * 80, 72 * 96, 72 * 96, 72 * 96, 96 * 72]
    assert batch.images.where(batch.valid, torch.zeros(())).equal(batch.images)
    together = predictor.predict(batch.images.double(), batch).predictions
    for sample, one in zip(every, together, strict=True):
        single = predictor.collate([sample])
        alone, = predictor.predict(single.images.double(), single).predictions
        assert_near(one.pred_instances.scores, alone.pred_instances.scores, 'network')
        assert_near(one.pred_instances.bboxes, alone.pred_instances.bboxes, 'network')


def test_what_the_model_gets_is_what_its_preprocessor_makes_of_the_pipelines_levels(retinanet, tmp_path):
    cfg = scenes.coco_config(scenes.coco_folder(tmp_path / 'data'))
    predictor, samples = with_pipeline(retinanet, cfg), build_detection_samples(cfg)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    packed = {str(dataset[i]['data_samples'].img_id): dataset[i]['inputs'] for i in range(5)}
    batch = predictor.collate([samples[index] for index in range(5)])
    for places, data in predictor.model_inputs(batch.images, batch):
        for place, inputs in zip(places, data['inputs'], strict=True):
            levels = packed[batch.samples[place].id].flip(0).float()  # BGR as loaded
            by_hand = (levels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
            height, width = levels.shape[1:]
            assert torch.equal(inputs[:, :height, :width], by_hand)
            assert inputs.shape[1] % 32 == inputs.shape[2] % 32 == 0
            assert not inputs[:, height:].any() and not inputs[:, :, width:].any()


def test_gradients_reach_the_pixels_and_not_the_padding(retinanet, tmp_path):
    """d inputs / d images = 255 / std of the same channel, and nothing where the batch was padded."""
    cfg = scenes.coco_config(scenes.coco_folder(tmp_path / 'data'))
    predictor, samples = with_pipeline(retinanet, cfg), build_detection_samples(cfg)
    batch = predictor.collate([samples[index] for index in range(5)])
    images = batch.images.requires_grad_()
    sum(data['inputs'].sum() for _, data in predictor.model_inputs(images, batch)).backward()
    wanted = (255 / torch.tensor(STD)).view(1, 3, 1, 1) * batch.valid
    torch.testing.assert_close(images.grad, wanted)
    assert not any(parameter.requires_grad for parameter in predictor.model.parameters())


def test_what_the_pipeline_pads_is_not_valid(retinanet, tmp_path):
    """RTMDet's pipeline pads to a square with 114 before the model sees the image."""
    resize = scenes.PIPELINE[:2]
    pad = dict(type='Pad', size=(128, 128), pad_val=dict(img=(114, 114, 114)))
    cfg = scenes.coco_config(scenes.coco_folder(tmp_path / 'data'), pipeline=[*resize, pad, *scenes.PIPELINE[2:]])
    predictor, samples = with_pipeline(retinanet, cfg), build_detection_samples(cfg)
    batch = predictor.collate([samples[index] for index in range(5)])
    assert batch.images.shape[2:] == (128, 128)
    assert batch.valid[1, 0, :72, :96].all() and batch.valid[1].sum() == 72 * 96
    assert (batch.images[1][:, ~batch.valid[1, 0]] == torch.tensor(114.) / torch.tensor(255.)).all()


def test_a_loader_of_floats_gets_floats(retinanet, tmp_path):
    folder = scenes.coco_folder(tmp_path / 'data')
    cfg = scenes.coco_config(folder, pipeline=[dict(type='LoadImageFromFile', to_float32=True), *scenes.PIPELINE[1:]])
    predictor, samples = with_pipeline(retinanet, cfg), build_detection_samples(cfg)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    batch = predictor.collate([samples[1]])
    assert samples[1].image.dtype == torch.uint8 and dataset[0]['inputs'].dtype == torch.float32
    torch.testing.assert_close(batch.images[0] * 255, dataset[0]['inputs'].flip(0))


def test_predicting_leaves_the_batch_as_it_is(retinanet, few_shapes):
    samples = build_detection_samples(bundled('retinanet_pit_ti.py', few_shapes))
    batch = retinanet.collate([samples[0]])
    first = retinanet.predict(batch.images, batch).predictions
    assert 'pred_instances' not in batch.samples[0].target
    assert equal(first[0], retinanet.predict(batch.images, batch).predictions[0])
    assert len(batch.samples[0].target.gt_instances) > 0  # for a loss


def test_attention_under_any_condition(retinanet, few_shapes):
    samples = build_detection_samples(bundled('retinanet_pit_ti.py', few_shapes))
    batch = retinanet.collate([samples[0]])
    outputs = retinanet.predict(batch.images, batch, trace=True)
    assert 'stage1.block1' in outputs.trace.maps['softmax'] and len(outputs.predictions) == 1


def test_names_contain_weights_and_settings(folder, tmp_path):
    cfg = tiny.config(folder, 'retinanet')
    drawn = build_detector(cfg, 'random', config='retina-tiny')
    assert re.fullmatch(r"retina-tiny\(config='[0-9a-f]{16}', weights='random@[0-9a-f]{16}'\)", drawn.name)
    torch.save({'state_dict': {f'module.{name}': value for name, value in drawn.model.state_dict().items()}},
               tmp_path / 'w.pth')
    loaded = build_detector(cfg, tmp_path / 'w.pth', config='retina-tiny')
    assert "weights='w.pth@" in loaded.name
    state = loaded.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in drawn.model.state_dict().items())
    changes = ({}, {'model.test_cfg.score_thr': .1}, {'test_dataloader.dataset.pipeline.1.scale': (96, 96)},
               {'test_evaluator.iou_thrs': [.5]}, {'model.train_cfg.assigner.pos_iou_thr': .6})
    names = {build_detector(tiny.config(folder, 'retinanet', **one), 'random', config='x').name for one in changes}
    assert len(names) == 5
    assert build_detector(cfg, 'random', config='x', seed=1).name not in names


def test_random_weights_come_from_the_seed_and_disturb_no_other(folder):
    cfg = tiny.config(folder, 'retinanet')
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (build_detector(cfg, 'random', config='x', seed=seed).model for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), wanted)
    key = 'bbox_head.retina_cls.weight'
    assert torch.equal(one.state_dict()[key], same.state_dict()[key])
    assert not torch.equal(one.state_dict()[key], other.state_dict()[key])


@pytest.mark.parametrize('spoil, words', [
    (lambda state: state.pop('bbox_head.retina_cls.weight'), 'got other ones: 1 of .* bbox_head.retina_cls.weight'),
    (lambda state: state.update({'bbox_head.retina_cls.weight': torch.zeros(3, 3)}), 'got other ones: .*retina_cls'),
])
def test_weights_of_another_model_are_refused(folder, detectors, tmp_path, spoil, words):
    state = detectors('retinanet')[0].model.state_dict()
    spoil(state)
    torch.save(state, tmp_path / 'w.pth')
    with pytest.raises(ValueError, match=f'weights of the config in .*w.pth, {words}'):
        build_detector(tiny.config(folder, 'retinanet'), tmp_path / 'w.pth', config='x')


def test_detectors_with_equal_tensors_have_one_identity(folder, detectors, tmp_path):
    state = detectors('retinanet')[0].model.state_dict()
    changed = {**state, 'bbox_head.retina_cls.bias': state['bbox_head.retina_cls.bias'] + 1}
    names = []
    for file, content in (('a.pth', state), ('b.pth', {'state_dict': state}), ('c.pth', changed), ('a.pth', changed)):
        torch.save(content, tmp_path / file)
        names.append(build_detector(tiny.config(folder, 'retinanet'), tmp_path / file, config='x').name)
    keys = [get_model_key(name) for name in names]
    assert len(set(names)) == 4 and keys[0] == keys[1] != keys[2] == keys[3]
    assert all(f"weights='{file}@" in name for file, name in zip('a.pth b.pth c.pth a.pth'.split(), names))


@pytest.mark.parametrize('wrap', [lambda state: {'state_dict': {}, 'model': state},
                                  lambda state: {'state_dict_ema': {}, 'state_dict': state}])
def test_entries_without_tensors_are_skipped(wrap, folder, detectors, tmp_path):
    state = detectors('retinanet')[0].model.state_dict()
    torch.save(wrap(state), tmp_path / 'w.pth')
    loaded = build_detector(tiny.config(folder, 'retinanet'), tmp_path / 'w.pth', config='x').model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


@pytest.mark.parametrize('content', [{}, {'state_dict': {}}, {'meta': {'epoch': 1}, 'state_dict': {}}, [1, 2]])
def test_files_without_tensors_are_refused(content, folder, tmp_path):
    torch.save(content, tmp_path / 'w.pth')
    with pytest.raises(ValueError, match='tensors'):
        build_detector(tiny.config(folder, 'retinanet'), tmp_path / 'w.pth', config='x')


def test_collate_looks_at_the_image_it_is_given(retinanet, few_shapes):
    """Not at the file: the loop puts corrupted pixels in the sample's place."""
    samples = build_detection_samples(bundled('retinanet_pit_ti.py', few_shapes))
    black = replace(samples[0], image=torch.zeros_like(samples[0].image))
    batch = retinanet.collate([black, samples[0]])
    assert not batch.images[0].any() and batch.images[1].any()
    assert np.array_equal((batch.images[1] * 255).byte().numpy(), samples[0].image.numpy())  # 128 px stay 128 px
