"""Shared classification recipe: DeiT's augmentation, schedule, averaging (facebookresearch/deit, main.py)."""
custom_imports = dict(imports=['pit_downstream.training.registration'], allow_failed_imports=False)
model = dict(
    type='ImageClassifier', network=dict(drop_path_rate=0.1),
    data_preprocessor=dict(
        type='ClassifierPreprocessor', smoothing=0.1, erasing=dict(probability=0.25, mode='pixel', max_count=1),
        mixing=dict(mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5, mode='batch')))
loader = dict(num_workers=8, collate_fn=dict(type='default_collate'),
              worker_init_fn=dict(type='leave_seeds_to_torch'))
train_dataloader = dict(
    batch_size=64, drop_last=True, sampler=dict(type='DefaultSampler', shuffle=True), dataset=dict(
        type='TrainingImages', root='data/imagenet/train', transform=dict(
            scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), hflip=0.5, auto_augment='rand-m9-mstd0.5-inc1', color_jitter=0.4,
            interpolation='bicubic')), **loader)
val_dataloader = dict(
    batch_size=96, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='EvaluationImages', root='data/imagenet/val'), **loader)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='TopAccuracy', topk=(1, 5))
train_cfg, val_cfg, test_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1), dict(), dict()
optim_wrapper = dict(
    type='OptimWrapper', constructor='TimmGroupsConstructor', optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05))
warm_up = dict(type='LinearLR', start_factor=1e-6 / 5e-4, end=5, by_epoch=True, convert_to_iter_based=True)
cosine = dict(type='CosineAnnealingLR', begin=5, end=300, eta_min=1e-5, by_epoch=True, convert_to_iter_based=True)
param_scheduler = [warm_up, cosine]
auto_scale_lr = dict(enable=True, base_batch_size=512)
default_hooks = dict(logger=dict(type='LoggerHook', interval=50), checkpoint=dict(
    type='CheckpointHook', interval=1, max_keep_ckpts=3))
custom_hooks = [
    dict(type='EMAHook', momentum=1 - 0.99996, update_buffers=True), dict(type='EpochSeedHook'),
    dict(type='WeightsHook')]
randomness = dict(seed=0)
