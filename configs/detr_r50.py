"""ResNet-50 counterpart of detr_pit_s.py: the same recipe, mmdet's backbone.

python tools/train.py configs/detr_r50.py [--bundled]
Needs COCO (data/README.md) and torchvision's weights. mmdet publishes 39.9 AP for its recipe; not measured here.
"""
_base_ = './_base_/detr.py'
