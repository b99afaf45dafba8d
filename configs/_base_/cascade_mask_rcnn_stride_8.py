"""Cascade Mask R-CNN for backbones with strides 8/16/32; anchors and RoIs as in mask_rcnn_stride_8.py."""
_base_ = './cascade_mask_rcnn.py'
model = dict(
    neck=dict(num_outs=5),
    rpn_head=dict(anchor_generator=dict(scales=[4], strides=[8, 16, 32, 64, 128])),
    roi_head=dict(
        bbox_roi_extractor=dict(featmap_strides=[8, 16, 32], finest_scale=112),
        mask_roi_extractor=dict(featmap_strides=[8, 16, 32], finest_scale=112)))
