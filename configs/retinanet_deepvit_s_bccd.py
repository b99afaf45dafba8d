"""RetinaNet on DeepViT-S, from scratch, on BCCD: 364 microscope images of blood cells in three classes.

python tools/train.py configs/retinanet_deepvit_s_bccd.py --data DIR
DIR has images/ and annotations/instances_{train,val}.json (data/README.md). Result: docs/results.md.
"""
_base_ = './retinanet_pit_ti_bccd.py'
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # as DeepViT was trained
    backbone=dict(_delete_=True, type='DeepViT', arch='s', out_strides=(8, 16, 32), drop_path_rate=0.1),
    neck=dict(in_channels=[396, 396, 396]))
load, truth = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)
train_dataloader = dict(dataset=dict(pipeline=[
    load, truth, dict(type='RandomChoiceResize', scales=[(224, 168), (256, 192), (288, 216)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PhotoMetricDistortion'), dict(type='PackDetInputs')]))
val_dataloader = dict(dataset=dict(pipeline=[
    load, dict(type='Resize', scale=(256, 192), keep_ratio=True), truth, dict(type='PackDetInputs')]))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_epochs=20, val_interval=10)
