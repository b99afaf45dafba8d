"""Faster R-CNN on DeepViT-16 with a simple feature pyramid (ViTDet) in place of the FPN, 12 epochs.

python tools/train.py configs/faster_rcnn_deepvit_16.py [--bundled]
Needs COCO and weights of DeepViT-16 (data/README.md: none were published); --bundled needs nothing. COCO AP: not yet
measured.
"""
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', './_base_/runtime.py']
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # as DeepViT was trained
    backbone=dict(
        _delete_=True, type='DeepViT', arch='16', pyramid='simple', drop_path_rate=0.1, norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='data/weights/deepvit_16.pth')),
    neck=dict(
        _delete_=True, type='ChannelMapper', in_channels=[256] * 4, out_channels=256, kernel_size=1, act_cfg=None,
        num_outs=5))
optim_wrapper = dict(
    constructor='PitOptimWrapperConstructor',
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05))
auto_scale_lr = dict(enable=False, base_batch_size=16)
