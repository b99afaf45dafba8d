"""Faster R-CNN on DeepViT-16 with a simple feature pyramid (ViTDet) in place of the FPN, 12 epochs.

python tools/train.py configs/faster_rcnn_deepvit_16.py [--bundled]
Needs COCO and weights of DeepViT-16 (data/README.md: none were published); --bundled needs nothing. COCO AP: not yet
measured.
"""
_base_ = './faster_rcnn_r50.py'
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # as DeepViT was trained
    backbone=dict(
        _delete_=True, type='DeepViT', arch='16', pyramid='simple', drop_path_rate=0.1, norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='data/weights/deepvit_16.pth')),
    neck=dict(
        _delete_=True, type='ChannelMapper', in_channels=[256] * 4, out_channels=256, kernel_size=1, act_cfg=None,
        num_outs=5))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.8))  # ViTDet: 0.7 for 12 blocks after MAE
