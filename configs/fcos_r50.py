"""FCOS with all its tricks on ResNet-50 from stride 8 on, 12 epochs; AdamW as in the Swin detectors.

python tools/train.py configs/fcos_r50.py [--bundled]
Needs COCO (data/README.md) and torchvision's weights; --bundled needs nothing. COCO AP: not yet measured.
mmdet's recipe starts from a Caffe ResNet; here images are RGB, normalized as for torchvision's weights.
"""
_base_ = [
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py',
    './_base_/default_runtime.py']
model = dict(
    data_preprocessor=dict(
        type='PitDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(out_indices=(1, 2, 3), style='pytorch', init_cfg=dict(checkpoint='torchvision://resnet50')),
    neck=dict(in_channels=[512, 1024, 2048], start_level=0))
optim_wrapper = dict(
    constructor='PitOptimWrapperConstructor',
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(_delete_=True), clip_grad=dict(_delete_=True, max_norm=35, norm_type=2))
auto_scale_lr = dict(enable=False, base_batch_size=16)
