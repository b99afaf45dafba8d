"""DINO with four feature levels on PiT-S, 12 epochs.

python tools/train.py configs/dino_pit_s.py [--bundled]
Needs COCO (data/README.md) and timm's weights of PiT-S; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './dino_r50.py'
model = dict(
    backbone=dict(
        _delete_=True, type='PiT', arch='s', drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='timm://pit_s_224.in1k')),
    neck=dict(in_channels=[144, 288, 576]))
