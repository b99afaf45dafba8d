"""Plain ViT counterpart of detr_pit_s.py: DeiT-S (ViT-S/16), its last map at stride 32.

python tools/train.py configs/detr_vit_s.py [--bundled]
Needs COCO (data/README.md) and timm's weights of DeiT-S; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './detr_r50.py'
model = dict(
    backbone=dict(
        _delete_=True, type='DeepViT', arch='vit_s', out_strides=(32,), drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='timm://deit_small_patch16_224.fb_in1k')),
    neck=dict(in_channels=[384]))
