"""Any config can be put on the bundled dataset."""

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

import pit_downstream.det  # noqa: F401
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from pit_downstream.datasets.shapes import CLASSES, OBJECT_SIZE, ROOT
from pit_downstream.det.config_utils import use_bundled
from pit_downstream.det.data_checks import LOADERS, iterate_dicts
from pit_downstream.training.launch import load_config
from tests.det.zoo import BUNDLED, CONFIGS, fresh
from tests.det.zoo import ROOT as FOLDER

# One stage, two stages with masks, a transformer: make test trains these, make test-slow the others.
ONE_OF_EACH = ('retinanet_pit_ti_bccd.py', 'mask_rcnn_deepvit_s.py', 'detr_r50.py')


@pytest.mark.parametrize('name', CONFIGS)
def test_nothing_of_coco_is_left(name):
    cfg = fresh(name)
    use_bundled(cfg, 'some/where')
    used = ('model', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator')
    text = str({key: cfg[key] for key in used})
    assert 'data/coco' not in text and 'Pretrained' not in text and "'num_classes': 80" not in text
    assert f"'num_classes': {len(CLASSES)}" in text
    assert cfg.train_dataloader.dataset.data_root == cfg.test_dataloader.dataset.data_root == 'some/where'
    assert cfg.test_evaluator.ann_file == 'some/where/annotations/instances_val.json'
    assert cfg.val_evaluator.metric == (['bbox', 'segm'] if 'mask_rcnn' in name else 'bbox')


def test_base_configs_agree_with_dataset():
    detection = Config.fromfile(FOLDER / '_base_/datasets/bundled_detection.py')
    classification = Config.fromfile(FOLDER / '_base_/bundled/classification.py')
    assert detection.data_root == f'{ROOT}/' and detection.metainfo.classes == CLASSES
    assert classification.train_dataloader.dataset.root == f'{ROOT}/classification/train'
    assert classification.model.network.img_size == OBJECT_SIZE


def test_folder_inside_default_folder_is_used(tmp_path):
    cfg = fresh('retinanet_pit_ti.py')
    use_bundled(cfg, f'{ROOT}/faint')
    assert cfg.val_dataloader.dataset.data_root == cfg.test_dataloader.dataset.data_root == f'{ROOT}/faint'
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == f'{ROOT}/faint/annotations/instances_val.json'


def test_base_configs_compose_with_models_of_mmdet(tmp_path):
    """The settings of --bundled can be inherited and overridden as all base configs."""
    (tmp_path / 'mine.py').write_text(f"""
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', 'mmdet::_base_/default_runtime.py',
          '{FOLDER}/_base_/default_runtime.py', '{FOLDER}/_base_/datasets/bundled_detection.py',
          '{FOLDER}/_base_/schedules/bundled_17e.py']
model = dict(backbone=dict(init_cfg=None), bbox_head=dict(num_classes=len(_base_.metainfo.classes)))
train_cfg = dict(max_epochs=3)
""")
    cfg = Config.fromfile(tmp_path / 'mine.py')
    assert cfg.train_cfg == dict(type='EpochBasedTrainLoop', max_epochs=3, val_interval=2)
    cfg.merge_from_dict(dict(work_dir=str(tmp_path), log_level='ERROR'))
    assert Runner.from_cfg(cfg).model.bbox_head.num_classes == len(CLASSES)


def test_cascade_without_masks_gets_boxes_alone():
    cfg = load_config('mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py')
    use_bundled(cfg)
    init_default_scope('mmdet')
    assert not MODELS.build(cfg.model).with_mask and cfg.val_evaluator.metric == 'bbox'


def test_resnet_from_scratch_is_not_frozen():
    cfg = fresh('detr_r50.py')
    use_bundled(cfg)
    backbone = cfg.model.backbone
    assert backbone.frozen_stages == -1 and not backbone.norm_eval and backbone.norm_cfg.requires_grad


def test_a_checkpoint_named_in_the_config_is_not_taken_along():
    cfg = fresh('detr_pit_s.py')
    cfg.merge_from_dict(dict(load_from='coco.pth', resume=True))
    use_bundled(cfg)
    assert cfg.load_from is None and cfg.resume is False


@pytest.mark.parametrize('name, channels', [
    ('detr_pit_s.py', 288), ('conditional_detr_r50.py', 1024), ('dab_detr_vit_s.py', 384)])
def test_detr_reads_the_map_of_stride_16(name, channels):
    cfg = fresh(name)
    use_bundled(cfg)
    init_default_scope('mmdet')
    maps = MODELS.build(cfg.model.backbone)(torch.randn(1, 3, 128, 128))
    assert [tuple(one.shape) for one in maps] == [(1, channels, 8, 8)]
    assert cfg.model.neck.in_channels == [channels]


@pytest.mark.parametrize('name', ['detr_pit_s.py', 'detr_r50.py'])
def test_what_all_places_share_does_not_reach_detr(name):
    cfg = fresh(name)
    use_bundled(cfg)
    init_default_scope('mmdet')
    neck, (channels,) = MODELS.build(cfg.model.neck).train(), cfg.model.neck.in_channels
    places = torch.randn(4, channels, 3, 5)
    plain, shifted = neck((places,))[0], neck((places + torch.randn(channels, 1, 1),))[0]
    torch.testing.assert_close(shifted, plain, rtol=0, atol=1e-4)
    torch.testing.assert_close(plain.mean((0, 2, 3)), torch.zeros(256), rtol=0, atol=1e-5)


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=() if name in ONE_OF_EACH else pytest.mark.slow) for name in BUNDLED])
def test_learns_a_step_and_predicts(name, few_shapes, tmp_path):
    """Four images through mmengine's Runner: data, step, schedule, checkpoint, validation."""
    cfg = fresh(name)
    use_bundled(cfg, str(few_shapes))
    cfg.merge_from_dict(dict(work_dir=str(tmp_path), train_cfg=dict(max_epochs=1), log_level='ERROR'))
    for part in iterate_dicts(cfg.model.test_cfg):
        if 'score_thr' in part:
            part['score_thr'] = 0.0  # after one step nothing is sure of itself
    for loader in LOADERS:
        cfg[loader].update(batch_size=4, num_workers=0, persistent_workers=False)
        cfg[loader].dataset.indices = 4
    runner = Runner.from_cfg(cfg)
    runner.train()
    hub = runner.message_hub
    assert runner.iter == 1 and np.isfinite(hub.get_scalar('train/loss').current())
    assert 0 <= hub.get_scalar('val/coco/bbox_mAP').current() <= 1
    assert (tmp_path / 'epoch_1.pth').is_file()


def test_evaluation_sees_the_true_boxes(few_shapes):
    """Boxes of the validation set are those of the file, not resized ones: images are painted on the original."""
    cfg = fresh('mask_rcnn_pit_s.py')
    use_bundled(cfg, str(few_shapes))
    cfg.merge_from_dict({'val_dataloader.dataset.pipeline.1.scale': (64, 64)})
    init_default_scope('mmdet')
    sample = DATASETS.build(cfg.val_dataloader.dataset)[0]['data_samples']
    coco = COCO(f'{few_shapes}/annotations/instances_val.json')
    expected = [a['bbox'] for a in coco.loadAnns(coco.getAnnIds(imgIds=[sample.img_id]))]
    x, y, w, h = torch.tensor(expected).T
    torch.testing.assert_close(sample.gt_instances.bboxes.tensor, torch.stack((x, y, x + w, y + h), 1))
    assert sample.gt_instances.masks.masks.shape[1:] == sample.ori_shape
