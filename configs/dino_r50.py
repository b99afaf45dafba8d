"""DINO with four feature levels on ResNet-50 (12 epochs, batch 16).

python tools/train.py configs/dino_r50.py [--bundled]
Needs COCO (data/README.md) and torchvision's weights; --bundled needs nothing. COCO AP: not yet measured.
"""
_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', './_base_/default_runtime.py']
model = dict(data_preprocessor=dict(type='PitDataPreprocessor'))
optim_wrapper = dict(
    constructor='PitOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, lr_mult={'backbone': 0.1}))
auto_scale_lr = dict(enable=False, base_batch_size=16)
