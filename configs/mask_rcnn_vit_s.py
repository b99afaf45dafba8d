"""Plain ViT counterpart of mask_rcnn_deepvit_s.py: DeiT-S (ViT-S/16), without Re-attention and convolutional stem.

python tools/train.py configs/mask_rcnn_vit_s.py [--bundled]
Needs COCO (data/README.md) and timm's weights of DeiT-S; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './mask_rcnn_deepvit_s.py'
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),  # ImageNet's, as for DeiT
    backbone=dict(arch='vit_s', init_cfg=dict(checkpoint='timm://deit_small_patch16_224.fb_in1k')),
    neck=dict(in_channels=[384, 384, 384, 384]))
