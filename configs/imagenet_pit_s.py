"""PiT-S on ImageNet by DeiT's recipe, without repeated augmentation.

python tools/train_classifier.py configs/imagenet_pit_s.py [--bundled]
AdamP in place of AdamW, and no repeated augmentation: the authors' replies in naver-ai/pit, issues 2 and 3.
80.9 % top-1 in their README; not measured here. --cfg-options model.network.name=pit_ti or pit_xs: the same recipe.
With a teacher: model.network.name=pit_s_distilled model.distillation.teacher=NAME model.distillation.kind=hard
"""
_base_ = [
    './_base_/models/image_classifier.py', './_base_/datasets/imagenet.py', './_base_/schedules/deit_300e.py',
    './_base_/classification_runtime.py']
model = dict(network=dict(name='pit_s'))
optim_wrapper = dict(optimizer=dict(type='AdamP'))
