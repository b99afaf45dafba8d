"""RetinaNet on PiT-Ti, 12 epochs.

python tools/train.py configs/retinanet_pit_ti.py [--bundled]
Needs COCO (data/README.md) and timm's weights of PiT-Ti; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './retinanet_pit_s.py'
model = dict(
    backbone=dict(arch='ti', init_cfg=dict(checkpoint='timm://pit_ti_224.in1k')),
    neck=dict(in_channels=[64, 128, 256]))
