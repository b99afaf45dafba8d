"""RetinaNet on PiT-B, 12 epochs.

python tools/train.py configs/retinanet_pit_b.py [--bundled]
Needs COCO (data/README.md) and timm's weights of PiT-B; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './retinanet_pit_s.py'
model = dict(
    backbone=dict(arch='b', drop_path_rate=0.3, init_cfg=dict(checkpoint='timm://pit_b_224.in1k')),
    neck=dict(in_channels=[256, 512, 1024]),
    bbox_head=dict(anchor_generator=dict(strides=[7, 14, 28, 56, 112])))
