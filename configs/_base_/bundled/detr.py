"""DETR on the bundled dataset: 12 queries, one encoder layer, two decoder layers, no dropout, 100 epochs at batch 16.

With more layers or with dropout, all queries give the same output for thousands of steps on such a small dataset.
BN in the neck removes the component that all positions of a map share, which hides the content of each position.
"""
_base_ = './default.py'
ffn = dict(ffn_drop=0.0, feedforward_channels=1024)
model = dict(
    neck=dict(norm_cfg=dict(_delete_=True, type='BN')), num_queries=12, test_cfg=dict(max_per_img=12),
    encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=dict(dropout=0.0), ffn_cfg=ffn)),
    decoder=dict(num_layers=2, layer_cfg=dict(
        self_attn_cfg=dict(dropout=0.0), cross_attn_cfg=dict(dropout=0.0), ffn_cfg=ffn)))
train_dataloader = dict(batch_size=16)
val_dataloader = test_dataloader = dict(batch_size=16)
train_cfg = dict(max_epochs=100, val_interval=16)
optim_wrapper = dict(optimizer=dict(lr=4e-4))
auto_scale_lr = dict(base_batch_size=16)
