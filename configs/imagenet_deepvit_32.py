"""DeepViT-32 on ImageNet (zhoudaquan/dvit_repo, scripts/DeepViT_32B_pure_transformer.yaml; run it with --amp).

python tools/train_classifier.py configs/imagenet_deepvit_32.py [--bundled]
80.90 % top-1 in the authors' README; not measured here. The penalty: 12 pairs in the yaml, 0.1 in their loss.
"""
_base_ = './imagenet_deepvit_24.py'
model = dict(
    network=dict(name='deepvit_32'), regularizer=dict(pairs=12, weight=0.1),
    data_preprocessor=dict(mixing=dict(mixup_alpha=0.1, cutmix_alpha=0.0)))
