"""Plain ViT counterpart of atss_pit_s.py: DeiT-S (ViT-S/16).

python tools/train.py configs/atss_vit_s.py [--bundled]
Needs COCO (data/README.md) and timm's weights of DeiT-S; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './atss_r50.py'
model = dict(
    backbone=dict(
        _delete_=True, type='DeepViT', arch='vit_s', out_strides=(8, 16, 32), drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='timm://deit_small_patch16_224.fb_in1k')),
    neck=dict(in_channels=[384, 384, 384]))
