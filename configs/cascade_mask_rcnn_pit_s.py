"""Cascade Mask R-CNN on PiT-S, 12 epochs.

python tools/train.py configs/cascade_mask_rcnn_pit_s.py [--bundled]
Needs COCO (data/README.md) and timm's weights of PiT-S; --bundled needs nothing. COCO AP: not yet measured.
Anchors and RoIs as in mask_rcnn_pit_s.py.
"""
_base_ = './cascade_mask_rcnn_r50.py'
model = dict(
    backbone=dict(
        _delete_=True, type='PiT', arch='s', stem_padding='same', drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='timm://pit_s_224.in1k')),
    neck=dict(in_channels=[144, 288, 576], num_outs=5),
    rpn_head=dict(anchor_generator=dict(scales=[4], strides=[8, 16, 32, 64, 128])),
    roi_head=dict(
        bbox_roi_extractor=dict(featmap_strides=[8, 16, 32], finest_scale=112),
        mask_roi_extractor=dict(featmap_strides=[8, 16, 32], finest_scale=112)))
