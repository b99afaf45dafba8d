"""ResNet-50 counterpart of dino_pit_s.py: the same recipe, mmdet's backbone.

python tools/train.py configs/dino_r50.py [--bundled]
Needs COCO (data/README.md) and torchvision's weights; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './_base_/dino.py'
