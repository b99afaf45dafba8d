"""DETR on the last map (stride 28) of PiT-B.

python tools/train.py configs/detr_pit_b.py [--bundled]
Needs COCO (data/README.md) and timm's weights of PiT-B; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './_base_/detr.py'
model = dict(
    backbone=dict(
        _delete_=True, type='PiT', arch='b', out_indices=(2,), drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='timm://pit_b_224.in1k')),
    neck=dict(in_channels=[1024]))
