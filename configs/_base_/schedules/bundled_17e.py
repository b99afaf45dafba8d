"""AdamW for detectors from scratch on the bundled dataset: 17 epochs at batch 8, 50 steps of warm-up, then a cosine."""
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=17, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper', constructor='PitOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, fused=True), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True, begin=0)]  # to the last epoch
auto_scale_lr = dict(enable=False, base_batch_size=8)
