"""DAB-DETR on the last map (stride 32) of PiT-S.

python tools/train.py configs/dab_detr_pit_s.py [--bundled]
Needs COCO (data/README.md) and timm's weights of PiT-S; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './dab_detr_r50.py'
model = dict(
    backbone=dict(
        _delete_=True, type='PiT', arch='s', out_indices=(2,), drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='timm://pit_s_224.in1k')),
    neck=dict(in_channels=[576]))
