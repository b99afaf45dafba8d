"""DeepViT's recipe (zhoudaquan/dvit_repo, scripts/DeepViT_24B_pure_transformer.yaml): 300 epochs and 10 at the end.

The learning rate is for batches of 32 per GPU. The authors' number of GPUs is unknown, so the rate is not scaled.
"""
_base_ = './classification.py'
model = dict(network=dict(drop_path_rate=0.2))
train_dataloader = dict(batch_size=32, dataset=dict(transform=dict(interpolation='random')))
val_dataloader = dict(batch_size=32)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=310)
auto_scale_lr = dict(_delete_=True, enable=False)
randomness = dict(seed=42)
