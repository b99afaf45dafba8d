"""DeepViT-S on ImageNet (zhoudaquan/dvit_repo, scripts/DeepViT_S_CNN_patch.yaml).

python tools/train_classifier.py configs/imagenet_deepvit_s.py [--bundled]
82.3 % top-1 in the authors' README; not measured here. --cfg-options model.network.name=deepvit_l: the same recipe.
"""
_base_ = './imagenet_deepvit_24.py'
model = dict(network=dict(name='deepvit_s'))
