"""RTMDet on the bundled dataset: half the width and fewer head convolutions."""
_base_ = './default.py'
norm_cfg = dict(type='GN', num_groups=16)
model = dict(
    neck=dict(out_channels=128),
    bbox_head=dict(in_channels=128, feat_channels=128, stacked_convs=2, norm_cfg=norm_cfg))
