"""Conditional DETR and DAB-DETR on the bundled dataset: the layers of detr.py, 24 queries, 50 epochs at batch 16."""
_base_ = './default.py'
ffn = dict(ffn_drop=0.0, feedforward_channels=1024)
model = dict(
    neck=dict(norm_cfg=dict(_delete_=True, type='BN')), num_queries=24, test_cfg=dict(max_per_img=24),
    encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=dict(dropout=0.0), ffn_cfg=ffn)),
    decoder=dict(num_layers=2, layer_cfg=dict(
        self_attn_cfg=dict(attn_drop=0.0), cross_attn_cfg=dict(attn_drop=0.0), ffn_cfg=ffn)))
train_dataloader = dict(batch_size=16)
val_dataloader = test_dataloader = dict(batch_size=16)
train_cfg = dict(max_epochs=50, val_interval=8)
optim_wrapper = dict(optimizer=dict(lr=4e-4))
auto_scale_lr = dict(base_batch_size=16)
