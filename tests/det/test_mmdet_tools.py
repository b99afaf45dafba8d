"""mmdet's tools with our backbones: a config of mmdet that imports `pit_downstream.det` needs nothing else of ours."""

import json
import sys
from pathlib import Path

import mmdet
import pytest
import torch

START = (sys.executable, '-m', 'pit_downstream.det')  # mmcv has no compiled operators here
TOOLS = Path(mmdet.__file__).parent / '.mim/tools'
CONFIG = """
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['pit_downstream.det'])
model = dict(
    backbone=dict(_delete_=True, type='PiT', arch='ti', out_indices=(0, 1, 2), stem_padding='same'),
    neck=dict(in_channels=[64, 128, 256], out_channels=32, start_level=0),
    bbox_head=dict(num_classes=4, in_channels=32, feat_channels=32, stacked_convs=1),
    test_cfg=dict(score_thr=0.0))  # after two iterations no score is high
data = dict(data_root='SHAPES/', metainfo=dict(classes=('circle', 'square', 'ring', 'cross')))
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(
    data, ann_file='annotations/instances_train.json', data_prefix=dict(img='train/'), indices=8))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(
    data, ann_file='annotations/instances_val.json', data_prefix=dict(img='val/')))
train_dataloader['dataset']['pipeline'] = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(64, 64), keep_ratio=True), dict(type='PackDetInputs')]
val_dataloader['dataset']['pipeline'] = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(ann_file='SHAPES/annotations/instances_val.json')
train_cfg = dict(max_epochs=1)
"""


@pytest.mark.slow
def test_config_of_mmdet_trains_and_tests_with_tools_of_mmdet(run_tool, few_shapes, tmp_path):
    (tmp_path / 'mine.py').write_text(CONFIG.replace('SHAPES', str(few_shapes)))
    trained = run_tool(TOOLS / 'train.py', 'mine.py', '--work-dir', 'work', start=START)
    assert trained.code == 0, trained.err[-2000:]
    checkpoint = torch.load(tmp_path / 'work/epoch_1.pth', weights_only=False)  # our own file
    assert checkpoint['meta']['iter'] == 2 and 'backbone.patch_embed.conv.weight' in checkpoint['state_dict']
    tested = run_tool(TOOLS / 'test.py', 'mine.py', 'work/epoch_1.pth', '--work-dir', 'tested', start=START)
    assert tested.code == 0, tested.err[-2000:]
    validated, = [json.loads(line) for path in (tmp_path / 'work').rglob('scalars.json')
                  for line in path.read_text().splitlines() if 'bbox_mAP"' in line]
    result, = [json.loads(path.read_text()) for path in (tmp_path / 'tested').glob('*/*.json')]
    assert result['coco/bbox_mAP'] == validated['coco/bbox_mAP']


def test_missing_script_is_refused(run_tool):
    done = run_tool('none.py', start=START)
    assert done.code == 2 and 'none.py' in done.err and 'Traceback' not in done.err
