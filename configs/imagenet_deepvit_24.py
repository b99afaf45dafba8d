"""DeepViT-24 on ImageNet (zhoudaquan/dvit_repo, scripts/DeepViT_24B_pure_transformer.yaml).

python tools/train_classifier.py configs/imagenet_deepvit_24.py [--bundled]
79.99 % top-1 in the authors' README; not measured here. --cfg-options model.network.name=vit_24: plain ViT.
"""
_base_ = './_base_/classification_deepvit.py'
model = dict(network=dict(name='deepvit_24'))
