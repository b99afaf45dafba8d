"""ResNet-50 counterpart of cascade_mask_rcnn_pit_s.py: the same recipe, mmdet's backbone and its map of stride 4.

python tools/train.py configs/cascade_mask_rcnn_r50.py [--bundled]
Needs COCO (data/README.md) and torchvision's weights; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './_base_/cascade_mask_rcnn.py'
