"""RTMDet-l on ResNet-50, by mmdet's recipe for transformers: 100 epochs at 640 px, batch 128, averaged weights.

python tools/train.py configs/rtmdet_r50.py [--bundled]
Needs COCO (data/README.md) and torchvision's weights; --bundled needs nothing. COCO AP: not yet measured.
Its neck doubles maps exactly, so the backbone must halve them exactly: PiT uses stem_padding='same'.
"""
_base_ = 'mmdet::rtmdet/rtmdet_l_swin_b_4xb32-100e_coco.py'
custom_imports = dict(imports=['pit_downstream.det'], allow_failed_imports=False)
custom_hooks = [*_base_.custom_hooks, dict(type='BackboneLoadFromHook')]
model = dict(
    data_preprocessor=dict(type='PitDataPreprocessor', pad_size_divisor=32),
    backbone=dict(
        _delete_=True, type='ResNet', depth=50, out_indices=(1, 2, 3), frozen_stages=1, norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    neck=dict(in_channels=[512, 1024, 2048], norm_cfg=dict(num_groups=8)))  # 8 divides half of PiT-S's 144 channels
optim_wrapper = dict(constructor='PitOptimWrapperConstructor', paramwise_cfg=dict(_delete_=True))
auto_scale_lr = dict(enable=False, base_batch_size=128)
