"""Classifier with the regularization of DeiT (facebookresearch/deit, main.py). model.network.name: ours or timm's."""
model = dict(
    type='ImageClassifier', network=dict(drop_path_rate=0.1),
    data_preprocessor=dict(
        type='ClassifierPreprocessor', smoothing=0.1, erasing=dict(probability=0.25, mode='pixel', max_count=1),
        mixing=dict(mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5, mode='batch')))
