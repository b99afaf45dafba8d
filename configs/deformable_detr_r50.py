"""Deformable DETR (refined, two-stage) on ResNet-50 at half resolution (50 epochs, batch 32).

python tools/train.py configs/deformable_detr_r50.py [--bundled]
Needs COCO (data/README.md) and torchvision's weights; --bundled needs nothing. COCO AP: not yet measured.
Scales 240..400, longest side 666, crop branch 200/250/300 -> 192..300: the author's reply in naver-ai/pit issue 6.
"""
_base_ = ['mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py', './_base_/default_runtime.py']
model = dict(data_preprocessor=dict(type='PitDataPreprocessor'))
scales = [(400 - 16 * i, 666) for i in range(11)]
load, annotations = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)
train_pipeline = [
    load, annotations, dict(type='RandomFlip', prob=0.5), dict(type='RandomChoice', transforms=[
        [dict(type='RandomChoiceResize', scales=scales, keep_ratio=True)],
        [dict(type='RandomChoiceResize', scales=[(200, 2100), (250, 2100), (300, 2100)], keep_ratio=True),
         dict(type='RandomCrop', crop_type='absolute_range', crop_size=(192, 300), allow_negative_crop=True),
         dict(type='RandomChoiceResize', scales=scales, keep_ratio=True)]]),
    dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(666, 400), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(
    constructor='PitOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, lr_mult={'backbone': 0.1, 'sampling_offsets': 0.1, 'reference_points': 0.1}))
auto_scale_lr = dict(enable=False, base_batch_size=32)
