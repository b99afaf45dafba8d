"""ResNet-50 counterpart of rtmdet_pit_s.py: the same recipe, mmdet's backbone.

python tools/train.py configs/rtmdet_r50.py [--bundled]
Needs COCO (data/README.md) and torchvision's weights; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './_base_/rtmdet.py'
model = dict(
    backbone=dict(
        _delete_=True, type='ResNet', depth=50, out_indices=(1, 2, 3), frozen_stages=1, norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    neck=dict(in_channels=[512, 1024, 2048]))
