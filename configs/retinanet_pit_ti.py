"""RetinaNet on PiT-Ti, 12 epochs.

python tools/train.py configs/retinanet_pit_ti.py [--bundled]
Needs COCO (data/README.md) and timm's weights of PiT-Ti; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './_base_/retinanet.py'
model = dict(
    backbone=dict(
        _delete_=True, type='PiT', arch='ti', stem_padding='same', drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='timm://pit_ti_224.in1k')),
    neck=dict(in_channels=[64, 128, 256]))
