"""RTMDet-l on PiT-S, 100 epochs.

python tools/train.py configs/rtmdet_pit_s.py [--bundled]
Needs COCO (data/README.md) and timm's weights of PiT-S; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = './rtmdet_r50.py'
model = dict(
    backbone=dict(
        _delete_=True, type='PiT', arch='s', stem_padding='same', drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='timm://pit_s_224.in1k')),
    neck=dict(in_channels=[144, 288, 576]))
