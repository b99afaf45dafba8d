"""How images are prepared for a classifier: what tools print, record, take and refuse."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pit_downstream.results.condition import CLEAN
from pit_downstream.datasets.base import Preprocess
from pit_downstream.datasets.imagenet import load_class_folders
from pit_downstream.evaluation.classifier import ClassifierPredictor, Preparation
from pit_downstream.evaluation.evaluator import Evaluator, Store
from pit_downstream.evaluation.inputs import require_classes
from pit_downstream.evaluation.models import build_classifier
from pit_downstream.metrics.classification import make_top1_error
from tests.evaluation import toy

HERE = 'tests.evaluation.cifar_resnet'
TOY = toy.NAME


@pytest.fixture(scope='module')
def cifar(tmp_path_factory):
    """(class folders of 200 CIFAR-10 images, weights of a ResNet-20)."""
    real = os.environ.get('PIT_DOWNSTREAM_REAL_DATA')
    if not real:
        pytest.skip('PIT_DOWNSTREAM_REAL_DATA is not set')
    root, raw = tmp_path_factory.mktemp('cifar'), Path(real).resolve() / 'cifar10_raw'
    images, labels = np.load(raw / 'images.npy'), np.load(raw / 'labels.npy')
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = root / 'val' / str(label) / f'{index}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return root / 'val', raw.parent / 'models/cifar10_resnet20.pth'


@pytest.mark.parametrize('model, flags, line', [
    ('resnet20', ['--img-size', 32], 'shorter side resized to 32 (bilinear), center crop of 32 x 32, mean 0.485 0.456'),
    ('resnet20', ['--preprocess', 'none', '--mean', .485, .456, .406, '--std', .229, .224, .225],
     'images as they are, mean 0.485 0.456 0.406, std 0.229 0.224 0.225'),
    ('stated_resnet20', [], 'shorter side resized to 32 (bicubic), center crop of 32 x 32, mean 0.485'),
    ("normalized_resnet20(file='{}')", ['--img-size', 32, '--mean', 0, '--std', 1], '32 x 32, mean 0 0 0, std 1 1 1'),
])
def test_cifar_network_has_its_published_error(model, flags, line, cifar, run_tool):
    """Published: 91.73 %; these 200 images: top-1 0.925. As ImageNet's models are prepared, its error is 0.90."""
    images, weights = cifar
    file = [] if '{}' in model else ['--weights', weights]
    done = run_tool('eval_imagenet_c.py', '--model', f'{HERE}:{model.format(weights)}', *file, '--data', images,
                    '--corruptions', 'fog', '--severities', '1', '--output-dir', 'store', *flags)
    assert done.code == 0, done.err
    assert re.search(r'^clean +0\.0750$', done.out, re.MULTILINE), done.out
    assert line in done.out


def test_imagenet_network_of_a_folder_has_its_accuracy(tmp_path):
    real = os.environ.get('PIT_DOWNSTREAM_REAL_DATA')
    if not real:
        pytest.skip('PIT_DOWNSTREAM_REAL_DATA is not set')
    real = Path(real).resolve()
    predictor = build_classifier(f'local-dir:{real}/models/mobilenetv2_100')
    samples = load_class_folders(real / 'imagenet_sample/val', view=predictor.view)
    table = Evaluator(predictor, samples, [make_top1_error()], [CLEAN], store=Store(None)).run()
    assert table[CLEAN, 'top1_error'] == pytest.approx(.14)
    assert predictor.name.startswith("mobilenetv2_100(mean=0.5, pad_type='same', std=0.5, weights='local-dir:")


@pytest.mark.parametrize('tool, more', [
    ('eval_imagenet_c.py', ['--corruptions', 'toy_noise', '--severities', '1']),
    ('eval_adversarial.py', ['--attacks', 'fgsm', '--epsilons', '1/255', '--source', TOY]),
    ('eval_shifts.py', ['--shifts', 'shift_own=other'])])
def test_every_tool_prints_the_preprocessing_and_its_flags(tool, more, tmp_path, run_tool):
    toy.pictures(tmp_path / 'val', 8)
    toy.pictures(tmp_path / 'other', 8)
    done = run_tool(tool, '--model', TOY, '--data', 'val', '--output-dir', 'store', '--limit', '8', *more)
    assert done.code == 0, done.err
    lines = [line for line in done.out.splitlines() if 'preprocessing: ' in line]
    assert len(lines) == 1
    for words in ('resized to 40 (bilinear)', 'crop of 32 x 32', 'mean 0.5 0.4 0.3', 'std 0.2 0.2 0.2', '--preprocess',
                  '--img-size', '--mean', '--std'):
        assert all(words in line for line in lines)


def test_flags_change_view_and_normalization():
    def view(name, **options):
        return build_classifier(name, weights=None if ':' in name and 'vision' not in name else 'random',
                                **options).view
    assert view(TOY, img_size=16) == Preprocess(16, 20, 'bilinear')  # the crop ratio of its configuration
    assert view('pit_ti', img_size=64) == Preprocess(64, 71, 'bicubic') == view('pit_ti(img_size=64)')
    assert view('resnet18', img_size=64) == Preprocess(64, 67, 'bicubic')  # takes no such argument: 0.95 of the resize
    assert view('torchvision:resnet18', img_size=112) == Preprocess(112, 128, 'bilinear')
    assert view(f'{HERE}:resnet20', img_size=32) == Preprocess(32, 32, 'bilinear')
    assert view(TOY, preprocess='imagenet', img_size=112) == Preprocess(112, 128, 'bilinear')
    given = build_classifier(TOY, preprocess='none', mean=[0], std=[1 / 255] * 3).preparation
    assert (given.view, given.mean, given.std) == (Preprocess(None, None), (0, 0, 0), (1 / 255,) * 3)


def test_images_arrive_as_the_preparation_states():
    class Seen(torch.nn.Module):
        def forward(self, images):
            self.images = images
            return images.mean((2, 3))
    images = torch.rand(2, 3, 5, 7)
    for mean, std in (((0, 0, 0), (1, 1, 1)), ((.1, .2, .3), (.5, 2, .25))):
        model = Seen()
        ClassifierPredictor(model, Preparation(Preprocess(None, None), mean, std), name='x').logits(images)
        wanted = torch.stack([(images[:, i] - mean[i]) / std[i] for i in range(3)], 1)
        torch.testing.assert_close(model.images, wanted)


def test_normalization_is_part_of_the_identity():
    names = {build_classifier(TOY, **given).name for given in (
        {}, {'mean': (.5, .4, .3)}, {'preprocess': 'none'}, {'mean': [0], 'std': [1]}, {'mean': (.5, .4, .31)},
        {'preprocess': 'imagenet'})}
    assert len(names) == 4


@pytest.mark.parametrize('flags, words', [
    (['--mean', '123.675', '116.28', '103.53'], 'mean is for images in [0, 1], got (123.675'),
    (['--std', '0'], 'must be positive, got (0.0, 0.0, 0.0)'), (['--std', '.2', '-1', '.2'], 'must be positive'),
    (['--mean', 'nan'], 'finite'), (['--std', 'inf'], 'finite'), (['--std', '1e400'], 'finite'),
    (['--mean', '.1', '.2'], 'three finite numbers, got (0.1, 0.2)'), (['--img-size', '0'], "'0'"),
    (['--preprocess', 'none', '--img-size', '32'], 'img_size 32'), (['--preprocess', 'native'], 'native'),
])
def test_impossible_values_are_refused_before_any_work(flags, words, tmp_path, run_tool):
    toy.pictures(tmp_path / 'val', 4)
    done = run_tool('eval_imagenet_c.py', '--model', TOY, '--data', 'val', '--output-dir', 'store', *flags)
    assert done.code == 2 and words in done.err and 'Traceback' not in done.err
    assert not (tmp_path / 'store').exists()


@pytest.mark.parametrize('config, words', [({'mean': (123.7, 116.3, 103.5)}, 'mean is for images'),
                                           ({'std': (0, 1, 1)}, 'std must be positive'), ({'mean': (.5,)}, 'three')])
def test_impossible_configurations_are_refused(config, words, monkeypatch):
    monkeypatch.setattr(toy.Toy, 'pretrained_cfg', {**toy.Toy.pretrained_cfg, **config})
    with pytest.raises(ValueError, match=words):
        build_classifier(TOY)


@pytest.mark.parametrize('classes', [1001, 21843])
@pytest.mark.parametrize('tool, more', [
    ('eval_imagenet_c.py', []), ('eval_imagenet_c.py', ['--corrupted-data', 'c', '--corruptions', 'fog',
                                                    '--severities', 1]),
    ('eval_adversarial.py', ['--attacks', 'noise']), ('eval_shifts.py', ['--shifts', 'shift_own=val']),
    ('eval_adversarial.py', ['--model', toy.FOUR, '--attacks', 'fgsm', '--source', '{}'])])
def test_heads_that_are_not_imagenets_are_refused_on_its_classes(classes, tool, more, tmp_path, run_tool):
    toy.pictures(tmp_path / 'val', 4)
    toy.pictures(tmp_path / 'c/fog/1', 4)
    model = f'{TOY}(classes={classes})'
    more = [str(one).format(model) for one in more]
    done = run_tool(tool, '--model', model, '--data', 'val', '--output-dir', 'store', *more)
    assert (done.code, done.out) == (2, '') and f'{classes} outputs' in done.err and 'Traceback' not in done.err


def test_other_folders_take_any_head(tmp_path):
    toy.pictures(tmp_path / 'val', 4)
    for number, folder in enumerate(sorted((tmp_path / 'val').iterdir())):
        folder.rename(tmp_path / 'val' / str(number))
    require_classes(load_class_folders(tmp_path / 'val', view=Preprocess(32, 40)),
                    build_classifier(f'{TOY}(classes=1200)'))


@pytest.mark.parametrize('tool', ['eval_imagenet_c.py', 'eval_adversarial.py'])
def test_features_are_refused(tool, tmp_path, run_tool):
    toy.pictures(tmp_path / 'val', 4)
    done = run_tool(tool, '--model', 'resnet10t(num_classes=0)', '--weights', 'random', '--data', 'val',
                    '--output-dir', 's')
    assert (done.code, done.out) == (2, '') and 'num_classes=0' in done.err and not (tmp_path / 's').exists()
