"""DETR on the last map (stride 28) of PiT-B.

python tools/train.py configs/detr_pit_b.py [--bundled]
Needs COCO (data/README.md) and timm's weights of PiT-B; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './detr_pit_s.py'
model = dict(
    backbone=dict(arch='b', drop_path_rate=0.2, init_cfg=dict(checkpoint='timm://pit_b_224.in1k')),
    neck=dict(in_channels=[1024]))
