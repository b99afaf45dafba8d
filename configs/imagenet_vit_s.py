"""DeiT-S on ImageNet by DeiT's recipe, the counterpart of PiT-S.

python tools/train_classifier.py configs/imagenet_vit_s.py [--bundled]
79.8 % top-1 in the PiT authors' README; not measured here.
"""
_base_ = [
    './_base_/models/image_classifier.py', './_base_/datasets/imagenet.py', './_base_/schedules/deit_300e.py',
    './_base_/classification_runtime.py']
model = dict(network=dict(name='vit_s'))
train_dataloader = dict(sampler=dict(_delete_=True, type='RepeatedAugmentation', num_repeats=3))
