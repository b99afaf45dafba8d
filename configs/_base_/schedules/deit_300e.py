"""Schedule of DeiT (facebookresearch/deit, main.py): AdamW for 300 epochs, five of them warm-up, then a cosine."""
train_cfg, val_cfg, test_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1), dict(), dict()
optim_wrapper = dict(
    type='OptimWrapper', constructor='TimmGroupsConstructor', optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05))
warm_up = dict(type='LinearLR', start_factor=1e-6 / 5e-4, end=5, by_epoch=True, convert_to_iter_based=True)
cosine = dict(type='CosineAnnealingLR', begin=5, end=300, eta_min=1e-5, by_epoch=True, convert_to_iter_based=True)
param_scheduler = [warm_up, cosine]
auto_scale_lr = dict(enable=True, base_batch_size=512)
