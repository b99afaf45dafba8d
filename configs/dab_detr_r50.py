"""ResNet-50 counterpart of dab_detr_pit_s.py: the same recipe, mmdet's backbone.

python tools/train.py configs/dab_detr_r50.py [--bundled]
Needs COCO (data/README.md) and torchvision's weights; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './_base_/dab_detr.py'
