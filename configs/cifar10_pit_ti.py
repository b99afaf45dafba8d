"""PiT-Ti on CIFAR-10 at 64 px, in half an hour on one CPU core.

python tools/train_classifier.py configs/cifar10_pit_ti.py --data DIR
DIR has train/ and test/ with a folder for each class. Result: docs/results.md.
"""
_base_ = [
    './_base_/models/image_classifier.py', './_base_/datasets/imagenet.py', './_base_/schedules/deit_300e.py',
    './_base_/classification_runtime.py']
model = dict(network=dict(name='pit_ti', img_size=64, drop_path_rate=0.0), data_preprocessor=dict(
    erasing=None, mixing=None))
train_dataloader = dict(num_workers=1, dataset=dict(root='data/cifar10/train', transform=dict(
    _delete_=True, scale=(0.6, 1.0), ratio=(0.8, 1.25), hflip=0.5, color_jitter=None, interpolation='bicubic')))
val_dataloader = dict(num_workers=1, dataset=dict(root='data/cifar10/test'))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=1e-3, fused=True), clip_grad=dict(max_norm=1.0))
train_cfg = dict(max_epochs=14)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=1, by_epoch=True, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=1, by_epoch=True, convert_to_iter_based=True)]
auto_scale_lr = dict(enable=False, base_batch_size=64)
custom_hooks = [dict(type='EpochSeedHook'), dict(type='WeightsHook')]
