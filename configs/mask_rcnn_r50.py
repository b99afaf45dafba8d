"""ResNet-50 counterpart of mask_rcnn_pit_s.py and mask_rcnn_deepvit_s.py: the same recipe, mmdet's backbone.

python tools/train.py configs/mask_rcnn_r50.py [--bundled]
Needs COCO (data/README.md) and torchvision's weights; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './_base_/mask_rcnn.py'
