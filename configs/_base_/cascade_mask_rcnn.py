"""Cascade Mask R-CNN with maps of strides 4 to 32, 12 epochs; AdamW as in the Swin detectors."""
_base_ = ['mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py', './default_runtime.py']
model = dict(data_preprocessor=dict(type='PitDataPreprocessor'))
optim_wrapper = dict(
    constructor='PitOptimWrapperConstructor',
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05))
auto_scale_lr = dict(enable=False, base_batch_size=16)
