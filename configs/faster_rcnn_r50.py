"""ResNet-50 counterpart of faster_rcnn_deepvit_16.py: the same recipe, mmdet's backbone and FPN, one learning rate.

python tools/train.py configs/faster_rcnn_r50.py [--bundled]
Needs COCO (data/README.md) and torchvision's weights; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './_base_/faster_rcnn.py'
