"""DETR on ResNet-50 (150 epochs, batch 16), without weight decay on norms, biases and embeddings.

python tools/train.py configs/detr_r50.py [--bundled]
Needs COCO (data/README.md) and torchvision's weights; --bundled needs nothing. COCO AP: 39.9 in mmdet's table for its
recipe; not measured here.
"""
_base_ = ['mmdet::detr/detr_r50_8xb2-150e_coco.py', './_base_/default_runtime.py']
model = dict(data_preprocessor=dict(type='PitDataPreprocessor'))
optim_wrapper = dict(
    constructor='PitOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, lr_mult={'backbone': 0.1}))
auto_scale_lr = dict(enable=False, base_batch_size=16)
