"""Mask R-CNN on PiT-S, 12 epochs.

python tools/train.py configs/mask_rcnn_pit_s.py [--bundled]
Needs COCO (data/README.md) and timm's weights of PiT-S; --bundled needs nothing. COCO AP: not yet measured.
Anchors of 32 to 512 px as in mmdet's R50-FPN, here on strides 8 to 128. The finest RoI level has stride 8, so RoIs up
to 224 px read it (finest_scale 112), as with strides from 4 on.
"""
_base_ = './mask_rcnn_r50.py'
model = dict(
    backbone=dict(
        _delete_=True, type='PiT', arch='s', stem_padding='same', drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='timm://pit_s_224.in1k')),
    neck=dict(in_channels=[144, 288, 576], num_outs=5),
    rpn_head=dict(anchor_generator=dict(scales=[4], strides=[8, 16, 32, 64, 128])),
    roi_head=dict(
        bbox_roi_extractor=dict(featmap_strides=[8, 16, 32], finest_scale=112),
        mask_roi_extractor=dict(featmap_strides=[8, 16, 32], finest_scale=112)))
