"""Plain ViT counterpart of cascade_mask_rcnn_pit_s.py: DeiT-S (ViT-S/16), with a map of stride 4.

python tools/train.py configs/cascade_mask_rcnn_vit_s.py [--bundled]
Needs COCO (data/README.md) and timm's weights of DeiT-S; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './cascade_mask_rcnn_r50.py'
model = dict(
    backbone=dict(
        _delete_=True, type='DeepViT', arch='vit_s', out_strides=(4, 8, 16, 32), drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='timm://deit_small_patch16_224.fb_in1k')),
    neck=dict(in_channels=[384, 384, 384, 384]))
