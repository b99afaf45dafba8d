"""RetinaNet on PiT-Ti, from scratch, on BCCD: 364 microscope images of blood cells in three classes.

python tools/train.py configs/retinanet_pit_ti_bccd.py --data DIR
DIR has images/ and annotations/instances_{train,val}.json (data/README.md). Result: docs/results.md.
"""
_base_ = './retinanet_pit_ti.py'
data_root, metainfo = 'data/bccd/', dict(classes=('RBC', 'WBC', 'Platelets'))
norm = dict(type='GN', num_groups=16)  # training from scratch needs norms in neck and head (He et al. 2019, 1811.08883)
model = dict(
    backbone=dict(init_cfg=dict(_delete_=True)), neck=dict(out_channels=128, norm_cfg=norm), bbox_head=dict(
        num_classes=3, in_channels=128, feat_channels=128, stacked_convs=2, norm_cfg=norm,
        anchor_generator=dict(octave_base_scale=2)))  # from 16 px: half the platelets are below 22 px at this size
load, truth = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)
train_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(
    data_root=data_root, metainfo=metainfo, data_prefix=dict(img='images/'), pipeline=[
        load, truth, dict(type='RandomChoiceResize', scales=[(320, 240), (352, 264), (384, 288)], keep_ratio=True),
        dict(type='RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal']),
        dict(type='PhotoMetricDistortion'), dict(type='PackDetInputs')], ann_file='annotations/instances_train.json'))
val_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(
    data_root=data_root, metainfo=metainfo, data_prefix=dict(img='images/'), pipeline=[
        load, dict(type='Resize', scale=(352, 264), keep_ratio=True), truth, dict(type='PackDetInputs')],
    ann_file='annotations/instances_val.json'))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json', classwise=True)
optim_wrapper = dict(optimizer=dict(lr=1e-3, fused=True), clip_grad=dict(max_norm=1.0))
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=3))
train_cfg = dict(max_epochs=26, val_interval=13)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True, begin=0)]
