"""ResNet-50 counterpart of atss_pit_s.py: the same recipe, mmdet's backbone.

python tools/train.py configs/atss_r50.py [--bundled]
Needs COCO (data/README.md) and torchvision's weights; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './_base_/atss.py'
model = dict(
    backbone=dict(out_indices=(1, 2, 3)),
    neck=dict(in_channels=[512, 1024, 2048]))
