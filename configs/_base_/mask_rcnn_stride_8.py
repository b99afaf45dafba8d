"""Mask R-CNN for backbones with strides 8/16/32.

Anchors of 32 to 512 px as with mmdet's R50-FPN, here on strides 8 to 128.
The finest RoI level has stride 8, so RoIs up to 224 px read it (`finest_scale` 112), as with strides from 4 on.
"""
_base_ = './mask_rcnn.py'
model = dict(
    neck=dict(num_outs=5),
    rpn_head=dict(anchor_generator=dict(scales=[4], strides=[8, 16, 32, 64, 128])),
    roi_head=dict(
        bbox_roi_extractor=dict(featmap_strides=[8, 16, 32], finest_scale=112),
        mask_roi_extractor=dict(featmap_strides=[8, 16, 32], finest_scale=112)))
