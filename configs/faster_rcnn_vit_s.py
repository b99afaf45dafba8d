"""Plain ViT counterpart of faster_rcnn_deepvit_16.py: DeiT-S (ViT-S/16), without Re-attention.

python tools/train.py configs/faster_rcnn_vit_s.py [--bundled]
Needs COCO (data/README.md) and timm's weights of DeiT-S; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './faster_rcnn_deepvit_16.py'
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),  # ImageNet's, as for DeiT
    backbone=dict(arch='vit_s', init_cfg=dict(checkpoint='timm://deit_small_patch16_224.fb_in1k')))
