"""Faster R-CNN on ResNet-50, 12 epochs; AdamW as in the Swin detectors.

python tools/train.py configs/faster_rcnn_r50.py [--bundled]
Needs COCO (data/README.md) and torchvision's weights; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', './_base_/default_runtime.py']
model = dict(data_preprocessor=dict(type='PitDataPreprocessor'))
optim_wrapper = dict(
    constructor='PitOptimWrapperConstructor',
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05))
auto_scale_lr = dict(enable=False, base_batch_size=16)
