"""Deformable DETR and DINO on the bundled dataset: 40 queries, three layers each, no dropout, 30 epochs.

BN in the neck removes the component that all positions of a map share, which hides the content of each position.
"""
_base_ = './default.py'
ffn = dict(ffn_drop=0.0, feedforward_channels=1024)
attention = dict(dropout=0.0)
model = dict(
    neck=dict(norm_cfg=dict(_delete_=True, type='BN')), num_queries=40, test_cfg=dict(max_per_img=40),
    encoder=dict(num_layers=3, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
    decoder=dict(num_layers=3, layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn)))
train_cfg = dict(max_epochs=30, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=2e-4), clip_grad=dict(max_norm=0.1))
