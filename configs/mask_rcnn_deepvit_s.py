"""Mask R-CNN on DeepViT-S, 12 epochs; strides, anchors and RoIs are those of mmdet's R50-FPN.

python tools/train.py configs/mask_rcnn_deepvit_s.py [--bundled]
Needs COCO and DeepViT-S's weights (data/README.md); --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './mask_rcnn_r50.py'
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # as DeepViT was trained
    backbone=dict(
        _delete_=True, type='DeepViT', arch='s', drop_path_rate=0.1, norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='data/weights/deepvit_s.pth')),
    neck=dict(in_channels=[396, 396, 396, 396]))
