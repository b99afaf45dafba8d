"""AdamW for classifiers from scratch on the bundled dataset: 20 epochs at batch 32."""
train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=4)
optim_wrapper = dict(
    type='OptimWrapper', constructor='TimmGroupsConstructor',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05, fused=True), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True, begin=0)]  # to the last epoch
auto_scale_lr = dict(enable=False, base_batch_size=32)
