"""Batches: normalized always; erased, mixed and smoothed in training only. The oracles are torch and timm."""

import numpy as np
import pytest
import torch
from timm.loss import LabelSmoothingCrossEntropy

from pit_downstream.training.preprocess import ClassifierPreprocessor

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
MIXING = dict(mixup_alpha=0.8, cutmix_alpha=1.0)


def batch(count=4):
    images = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {'images': images, 'labels': torch.arange(count) % 3}


def normalized(images):
    return (images / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def test_evaluation_does_not_augment():
    data = batch()
    out = ClassifierPreprocessor(mean=MEAN, std=STD, num_classes=3, smoothing=0.1, mixing=MIXING,
                                 erasing=dict(probability=1.0, mode='pixel'))(data)
    assert torch.allclose(out['images'], normalized(data['images'])) and torch.equal(out['targets'], data['labels'])


def test_smoothed_targets_give_timms_loss():
    out = ClassifierPreprocessor(mean=MEAN, std=STD, num_classes=3, smoothing=0.1)(batch(), training=True)
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    expected = LabelSmoothingCrossEntropy(0.1)(logits, batch()['labels'])
    assert torch.nn.functional.cross_entropy(logits, out['targets']).item() == pytest.approx(expected.item())


def test_training_mixes_images_with_their_targets():
    """mixup alone: image i is lam * i + (1 - lam) * (last - i), and so are the targets."""
    np.random.seed(0)
    data = batch()
    preprocessor = ClassifierPreprocessor(mean=MEAN, std=STD, num_classes=3, mixing=dict(mixup_alpha=0.8))
    out = preprocessor(data, training=True)
    share, clean = out['targets'][1, 1].item(), normalized(data['images'])  # of classes 0, 1, 2, 0 the second
    assert 0 < share < 1 and torch.allclose(out['targets'].sum(1), torch.ones(4))
    assert torch.allclose(out['images'], share * clean + (1 - share) * clean.flip(0), atol=1e-5)


def test_erased_parts_are_noise_of_normalised_images():
    data = {'images': torch.zeros(8, 3, 16, 16, dtype=torch.uint8), 'labels': torch.zeros(8, dtype=torch.long)}
    preprocessor = ClassifierPreprocessor(mean=MEAN, std=STD, num_classes=3,
                                          erasing=dict(probability=1.0, mode='pixel', max_count=1))
    out = preprocessor(data, training=True)['images']
    erased = (out != normalized(data['images'])).any(1)
    assert (erased.flatten(1).sum(1) > 0).all() and (erased.flatten(1).float().mean(1) < 0.5).all()
    assert out[erased[:, None].expand_as(out)].std().item() == pytest.approx(1, abs=0.1)


def test_back_in_the_unit_range():
    preprocessor, data = ClassifierPreprocessor(mean=MEAN, std=STD, num_classes=3), batch()
    images = preprocessor(data)['images']
    assert torch.allclose(preprocessor.convert_to_unit_range(images), data['images'] / 255, atol=1e-6)
