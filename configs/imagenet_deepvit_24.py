"""DeepViT-24 on ImageNet (zhoudaquan/dvit_repo, scripts/DeepViT_24B_pure_transformer.yaml).

python tools/train_classifier.py configs/imagenet_deepvit_24.py [--bundled]
79.99 % top-1 in the authors' README; not measured here. --cfg-options model.network.name=vit_24: plain ViT.
"""
_base_ = [
    './_base_/models/image_classifier.py', './_base_/datasets/imagenet.py', './_base_/schedules/deit_300e.py',
    './_base_/classification_runtime.py']
model = dict(network=dict(name='deepvit_24', drop_path_rate=0.2))
train_dataloader = dict(batch_size=32, dataset=dict(transform=dict(interpolation='random')))
val_dataloader = dict(batch_size=32)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=310)  # 300 and 10 at the end
auto_scale_lr = dict(_delete_=True, enable=False)  # the number of GPUs that the rate was chosen for is unknown
randomness = dict(seed=42)
