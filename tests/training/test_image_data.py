"""Images and the order in which they come."""

import random
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image, ImageOps
from timm.data import auto_augment

from pit_downstream.datasets.base import Preprocess
from pit_downstream.datasets.imagenet import load_class_folders
from pit_downstream.training import image_data as data
from pit_downstream.training.image_data import (
    EvaluationImages,
    RepeatedAugmentation,
    TrainingImages,
    posterize,
    create_training_transform,
)
from pit_downstream.training.metric import TopAccuracy
from tests.conftest import REPO

VIEW = dict(size=32, resize=35, interpolation='bicubic')
TRANSFORM = dict(input_size=32, auto_augment='rand-m9-mstd0.5-inc1', interpolation='bicubic')


@pytest.fixture
def folder(few_shapes, tmp_path):
    return shutil.copytree(few_shapes / 'classification' / 'train', tmp_path / 'train')


def test_evaluation_sees_what_the_measuring_tools_see(folder):
    pictures, samples = EvaluationImages(str(folder), VIEW), load_class_folders(folder, view=Preprocess(**VIEW))
    assert len(pictures) == len(samples) == 6
    assert pictures.metainfo == {'classes': ('circle', 'cross', 'ring', 'square')}
    for index in range(6):
        assert torch.equal(pictures[index]['images'], samples[index].image)
        assert pictures[index]['labels'] == samples[index].target


def test_training_augments_anew_every_time(folder):
    pictures = TrainingImages(str(folder), TRANSFORM)
    first, again = pictures[0], pictures[0]
    assert first['images'].shape == (3, 32, 32) and first['images'].dtype == torch.uint8
    assert first['labels'] == again['labels'] == 0 and not torch.equal(first['images'], again['images'])


@pytest.mark.parametrize('policy', ['rand-m10-mstd0-inc1', 'rand-m0-mstd0', 'rand-m10-inc1', 'augmix-m10', 'v0', 'v0r',
                                    'original', 'originalr', '3a'])
def test_every_augmentation_runs_at_the_ends_of_its_range(policy):
    """Magnitude 10 of PosterizeIncreasing and 0 of Posterize keep 0 bits, which Pillow 13 refuses."""
    transform = create_training_transform(input_size=32, auto_augment=policy, color_jitter=0.4)
    augment = next(part for part in transform.transforms if hasattr(part, 'ops') or hasattr(part, 'policy'))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8))
    operations = augment.ops if hasattr(augment, 'ops') else [one for pair in augment.policy for one in pair]
    black = 0
    for operation in operations:
        for operation.magnitude in (0, 10):
            operation.prob, operation.magnitude_std = 1.0, 0
            levels = np.asarray(operation(image))
            assert levels.shape == (40, 48, 3)
            black += operation.name.startswith('Posterize') and not levels.any()
    assert black == sum(one.name in ('Posterize', 'PosterizeIncreasing') for one in operations)
    assert transform(image).shape == (3, 32, 32)


@pytest.mark.parametrize('bits', range(9))
def test_posterize_keeps_the_highest_bits(bits):
    """Pillow's own formula before version 13, 0 bits included."""
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    expected = values & ~np.uint8(2 ** (8 - bits) - 1) if bits < 8 else values
    assert np.array_equal(np.asarray(posterize(Image.fromarray(values), bits)), expected)


def test_the_augmentation_of_the_imagenet_recipes_runs(folder):
    """600 images: at two operations each, 0 bits come up about once; a magnitude of 10 makes it certain."""
    config = Config.fromfile(str(REPO / 'configs' / 'imagenet_pit_s.py')).train_dataloader.dataset
    random.seed(0)
    images = TrainingImages(str(folder), dict(config.transform, input_size=32))
    for index in range(600):
        assert images[index % 6]['images'].shape == (3, 32, 32)
    policy = config.transform.auto_augment.replace('-m9-', '-m10-')
    images, seen = TrainingImages(str(folder), dict(config.transform, input_size=32, auto_augment=policy)), 0
    for index in range(100):
        seen += not images[index % 6]['images'].any()
    assert seen


def test_timm_and_pillow_are_left_alone():
    before = ImageOps.posterize, auto_augment.posterize, dict(auto_augment.NAME_TO_OP)
    create_training_transform(input_size=32, auto_augment='rand-m9-mstd0.5-inc1')
    assert before == (ImageOps.posterize, auto_augment.posterize, dict(auto_augment.NAME_TO_OP))


def test_a_broken_image_is_named_and_replaced(folder, logged):
    broken = sorted(folder.glob('*/*.png'))[0]
    broken.write_bytes(broken.read_bytes()[:200])
    pictures = TrainingImages(str(folder), TRANSFORM)
    samples = load_class_folders(folder, view=Preprocess(**VIEW))
    assert pictures[0]['labels'] == samples.targets[1] and pictures[0]['images'].any()
    assert [message for message in logged if broken.name in message and 'another image is trained on' in message]
    assert len(logged) == 1  # once


def test_an_image_unreadable_in_validation_is_named_and_left_out(folder, logged):
    """Three images of which one is damaged: the accuracy rests on the other two."""
    broken = sorted(folder.glob('*/*.png'))[1]
    broken.write_bytes(broken.read_bytes()[:200])
    pictures, metric = EvaluationImages(str(folder), VIEW), TopAccuracy(topk=(1,))
    items = [pictures[index] for index in range(3)]
    assert broken.name in logged[0] and len({item['images'].shape for item in items}) == 1
    right = torch.nn.functional.one_hot(torch.tensor([0, 0, 3]), 4).float()  # the third one is wrong
    labels = torch.tensor([item['labels'] for item in items])
    assert labels[0] == 0 and labels[2] != 3
    metric.process({}, list(zip(right, labels, strict=True)))
    assert metric.evaluate(3) == {'accuracy/top1': 0.5}
    assert '1 of 3 images were unreadable' in logged[-1] and '2' in logged[-1]


def test_no_decodable_image(folder):
    for picture in folder.glob('*/*.png'):
        picture.write_bytes(b'')
    with pytest.raises(ValueError, match='got 6 files of which none decodes'):
        TrainingImages(str(folder), TRANSFORM)[3]


def test_repeated_augmentation_counts():
    """Of 12 images 4 come, each three times; another seed and another epoch choose others."""
    def epoch(number, **options):
        sampler = RepeatedAugmentation(range(12), selected_round=0, **options)
        sampler.set_epoch(number)
        return list(sampler)
    chosen = epoch(0, seed=5)
    assert len(chosen) == 12 and set(Counter(chosen).values()) == {3}
    assert chosen == epoch(0, seed=5) and chosen != epoch(1, seed=5) and chosen != epoch(0, seed=6)
    assert epoch(1, seed=5) == epoch(0, seed=6)  # as mmengine's own sampler adds them up
    assert set(Counter(epoch(0, seed=5, num_repeats=2)).values()) == {2}


def test_repeats_go_to_different_ranks(monkeypatch):
    """DeiT's point: with three ranks each sees every chosen image once, augmented its own way."""
    parts = []
    for rank in range(3):
        monkeypatch.setattr(data, 'get_dist_info', lambda rank=rank: (rank, 3))
        parts.append(list(RepeatedAugmentation(range(12), seed=0, selected_round=0)))
    assert parts[0] == parts[1] == parts[2] and len(set(parts[0])) == len(parts[0]) == 4
