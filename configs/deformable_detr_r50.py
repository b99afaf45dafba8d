"""ResNet-50 counterpart of deformable_detr_pit_s.py: the same half-resolution recipe, mmdet's backbone.

python tools/train.py configs/deformable_detr_r50.py [--bundled]
Needs COCO (data/README.md) and torchvision's weights. COCO AP at half resolution: not yet measured.
"""
_base_ = './_base_/deformable_detr_half.py'
