"""RetinaNet for backbones with strides 8/16/32, 12 epochs; AdamW as in the PVT and Swin detectors."""
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', './default_runtime.py']
model = dict(
    data_preprocessor=dict(type='PitDataPreprocessor'),
    neck=dict(start_level=0, add_extra_convs='on_output', num_outs=5))
optim_wrapper = dict(
    constructor='PitOptimWrapperConstructor',
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05))
auto_scale_lr = dict(enable=False, base_batch_size=16)
