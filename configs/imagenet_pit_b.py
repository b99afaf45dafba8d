"""PiT-B on ImageNet: PiT-S' recipe with repeated augmentation and ten epochs of warm-up (naver-ai/pit, issues 2 and 3).

python tools/train_classifier.py configs/imagenet_pit_b.py [--bundled]
82.0 % top-1 in the authors' README; not measured here.
"""
_base_ = './imagenet_pit_s.py'
model = dict(network=dict(name='pit_b'))
train_dataloader = dict(sampler=dict(_delete_=True, type='RepeatedAugmentation', num_repeats=3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / 5e-4, end=10, by_epoch=True, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=10, end=300, eta_min=1e-5, by_epoch=True, convert_to_iter_based=True)]
