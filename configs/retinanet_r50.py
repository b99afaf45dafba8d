"""RetinaNet on ResNet-50 from stride 8 on, 12 epochs; AdamW as in the PVT and Swin detectors.

python tools/train.py configs/retinanet_r50.py [--bundled]
Needs COCO (data/README.md) and torchvision's weights; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', './_base_/default_runtime.py']
model = dict(
    data_preprocessor=dict(type='PitDataPreprocessor'),
    backbone=dict(out_indices=(1, 2, 3)),
    neck=dict(in_channels=[512, 1024, 2048], start_level=0, add_extra_convs='on_output', num_outs=5))
optim_wrapper = dict(
    constructor='PitOptimWrapperConstructor',
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05))
auto_scale_lr = dict(enable=False, base_batch_size=16)
