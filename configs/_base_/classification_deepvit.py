"""DeepViT's recipe (zhoudaquan/dvit_repo, scripts/DeepViT_24B_pure_transformer.yaml): 300 epochs and 10 at the end.

Its rate belongs to batches of 32 on each GPU; on how many its authors trained is not known, so nothing scales it.
"""
_base_ = './classification.py'
model = dict(network=dict(drop_path_rate=0.2))
train_dataloader = dict(batch_size=32, dataset=dict(transform=dict(interpolation='random')))
val_dataloader = dict(batch_size=32)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=310)
auto_scale_lr = dict(_delete_=True, enable=False)
randomness = dict(seed=42)
