"""FCOS with all its tricks for backbones with strides 8/16/32, 12 epochs; AdamW as in the Swin detectors.

mmdet's recipe starts from a Caffe ResNet; here every backbone gets RGB, normalized as for torchvision's weights.
"""
_base_ = ['mmdet::fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py', './default_runtime.py']
model = dict(
    data_preprocessor=dict(
        type='PitDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(style='pytorch', init_cfg=dict(checkpoint='torchvision://resnet50')),
    neck=dict(start_level=0))
optim_wrapper = dict(
    constructor='PitOptimWrapperConstructor',
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(_delete_=True), clip_grad=dict(_delete_=True, max_norm=35, norm_type=2))
auto_scale_lr = dict(enable=False, base_batch_size=16)
