"""Predictors of every origin against the plain library call."""

import pickle
import re

import pytest
import timm
import torch
import torchvision
from timm.data import create_transform, resolve_data_config

import pit_downstream.backbones  # noqa: F401
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Sample
from pit_downstream.datasets.base import Preprocess
from pit_downstream.evaluation.classifier import ClassifierPredictor, Preparation
from pit_downstream.evaluation.models import build_classifier, classifiers
from tests.evaluation import toy
from tests.tolerances import assert_near

TOY = 'tests.evaluation.toy:classifier'
NORMALIZED = 'mean=(0.5, 0.4, 0.3), std=0.2'


def samples(count=2, side=224):
    generator = torch.Generator().manual_seed(0)
    return [Sample(str(i), torch.randint(256, (3, side, side), generator=generator, dtype=torch.uint8), i)
            for i in range(count)]


def logits(predictor, given):
    batch = predictor.collate(given)
    return predictor.predict(batch.images, batch).predictions


def test_a_name_with_weights_identifies_the_built_classifier(tmp_path):
    """Records keep the name: other weights in a file of the same name make another."""
    names = []
    for bias in (0., 1.):
        state = toy.classifier(4).state_dict() | {'head.bias': torch.full((4,), bias, dtype=torch.float64)}
        torch.save(state, tmp_path / 'own.pth')
        build, text = classifiers(), f"{TOY}(classes=4, weights='{tmp_path / 'own.pth'}')"
        assert build(text) is build(text) is build(build(text).name)
        names.append(build(text).name)
    assert names[0] != names[1] and all('own.pth@' in name for name in names)


@pytest.mark.numeric
def test_our_models_and_timms_by_name_and_file(tmp_path):
    torch.manual_seed(5)
    theirs = timm.create_model('pit_ti_224').eval()
    torch.save({'state_dict': {f'module.{name}': value for name, value in theirs.state_dict().items()}},
               tmp_path / 'ti.pth')
    given = samples()
    normalize = torchvision.transforms.Normalize(timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD)
    with torch.no_grad():
        wanted = theirs(normalize(torch.stack([sample.image for sample in given]) / 255))
    for name in ('pit_ti_224', 'pit_ti'):
        predictor = build_classifier(name, weights=str(tmp_path / 'ti.pth'))
        assert_near(logits(predictor, given), wanted, 'network')
        assert re.fullmatch(rf"{name}\(weights='ti.pth@[0-9a-f]{{16}}'\)", predictor.name)
        assert predictor.classes() == 1000
        config = resolve_data_config(pretrained_cfg=theirs.pretrained_cfg)
        assert predictor.view == Preprocess(224, 248, 'bicubic') == Preprocess(
            224, create_transform(**config).transforms[0].size, config['interpolation'])


def test_arguments_go_to_the_model(tmp_path):
    model = timm.create_model('pit_ti', num_classes=10)
    torch.save(model.state_dict(), tmp_path / 'ten.pth')
    predictor = build_classifier('pit_ti(num_classes=10)', weights=str(tmp_path / 'ten.pth'))
    assert predictor.classes() == 10
    torch.testing.assert_close(predictor.model.head.weight, model.head.weight)
    assert predictor.name.startswith("pit_ti(num_classes=10, weights='ten.pth@")


@pytest.mark.numeric
def test_torchvision_by_name(tmp_path):
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / 'r18.pth')
    predictor = build_classifier('torchvision:resnet18', weights=str(tmp_path / 'r18.pth'))
    given = samples()
    normalize = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        wanted = theirs(normalize(torch.stack([sample.image for sample in given]) / 255))
    assert_near(logits(predictor, given), wanted, 'network')
    assert predictor.view == Preprocess(224, 256, 'bilinear')


def test_custom_function():
    predictor = build_classifier(f'{TOY}(classes=5)')
    name = re.escape(f"{TOY}(classes=5, {NORMALIZED}, weights='custom@")
    assert re.fullmatch(name + r"[0-9a-f]{16}'\)", predictor.name)
    assert predictor.classes() == 5
    assert predictor.view == Preprocess(32, 40, 'bilinear')
    images = torch.stack([sample.image for sample in samples(3, 32)]) / 255
    wanted = toy.classifier(5)((images - torch.tensor([.5, .4, .3]).view(3, 1, 1)) / .2)
    torch.testing.assert_close(logits(predictor, samples(3, 32)), wanted)


def test_preprocessing_and_what_the_name_holds_of_it():
    own, foreign, native = (build_classifier(TOY, preprocess=way) for way in ('model', 'imagenet', 'none'))
    assert foreign.view == Preprocess(224, 256, 'bilinear') and foreign.preparation.mean == (0.485, 0.456, 0.406)
    assert native.view == Preprocess(None, None) and native.preparation.mean == own.preparation.mean
    assert own.name == native.name and foreign.name == own.name.replace(f'{NORMALIZED}, ', '')
    assert build_classifier(TOY, amp='bf16').name == own.name.replace('mean', "amp='bf16', mean")


def test_random_weights_come_from_the_seed_and_leave_the_global_state():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, same, other = (build_classifier('pit_ti', weights='random', seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.model.head.weight, same.model.head.weight)
    assert not torch.equal(first.model.head.weight, other.model.head.weight)
    assert first.name == same.name != other.name and first.name.startswith("pit_ti(weights='random@")


def test_the_loss_is_cross_entropy_and_differentiable():
    predictor, given = build_classifier(TOY), samples(3, 32)
    batch = predictor.collate(given)
    images = batch.images.requires_grad_()
    loss = predictor.loss(images, batch)
    wanted = torch.nn.functional.cross_entropy(logits(predictor, given), torch.arange(3), reduction='none')
    torch.testing.assert_close(loss, wanted)
    assert torch.autograd.grad(loss.sum(), images)[0].abs().sum() > 0
    assert not predictor.predict(images, batch).predictions.requires_grad


def test_a_batch_is_float_and_wholly_valid():
    batch = build_classifier(TOY).collate(samples(3, 32))
    assert batch.images.dtype == torch.float32 and batch.images.min() >= 0 and batch.images.max() == 1
    assert batch.valid.shape == (3, 1, 32, 32) and batch.valid.all() and len(batch.samples) == 3


@pytest.mark.numeric
def test_amp_and_compile_change_little():
    given = samples(4, 32)
    wanted = logits(build_classifier(TOY), given)
    assert logits(build_classifier(TOY, amp='bf16'), given).dtype == torch.float32
    assert_near(logits(build_classifier(TOY, amp='bf16'), given), wanted, 'block', dtype=torch.bfloat16)


@pytest.mark.parametrize('name', ['pit_ti', 'torchvision:resnet18'])
def test_published_weights_keep_their_own_head(name, monkeypatch):
    """timm would build ten random classes around published weights; here nothing is downloaded."""
    make = timm.create_model
    monkeypatch.setattr('timm.create_model', lambda name, pretrained=False, **kwargs: make(name, **kwargs))
    with pytest.raises(ValueError, match=rf'expected 1000 classes, as the published weights of {name} have, got 10 in '
                                         rf'{name}\(num_classes=10\); give your own weights with --weights FILE'):
        build_classifier(f'{name}(num_classes=10)')
    if name == 'pit_ti':
        name = build_classifier('pit_ti(num_classes=1000)').name
        assert name.startswith("pit_ti(num_classes=1000, weights='timm/pit")


class Code:
    def __reduce__(self):
        return print, ('ran',)


@pytest.mark.parametrize('text, given, words', [
    ('pit_sx', {'weights': 'random'}, "no model named 'pit_sx'; did you mean pit_s"),
    ('torchvision:resnet51', {'weights': 'random'}, "no model named 'resnet51' in torchvision; did you mean resnet"),
    ('torchvision:fasterrcnn_resnet50_fpn', {'weights': 'random'}, 'expected a classifier of images, got torchvision'),
    ('nowhere.to:find', {}, "no function 'find' in the module 'nowhere.to'"),
    ('tests.evaluation.toy:nothing', {}, "no function 'nothing' in the module 'tests.evaluation.toy'"),
    ('tests.evaluation.toy:no_classifier', {}, 'to return a torch module, got str'),
    ('pit_ti(color=3)', {'weights': 'random'}, 'expected a name and arguments that can be built, got pit_ti.*color'),
    ('pit_ti(num_classes=-1)', {'weights': 'random'}, r'that can be built, got pit_ti\(num_classes=-1\): '),
    ('resnet50.nope', {'weights': 'random'}, 'that can be built, got resnet50.nope: .*nope.*; check --model'),
    ('torchvision:resnet18(num_classes=-1)', {'weights': 'random'}, 'that can be built, got torchvision:resnet18'),
    ('pit_ti', {'weights': 'nowhere.pth'}, 'expected weights in nowhere.pth, found no such file'),
    ('pit_ti', {'weights': 'random', 'preprocess': 'mine'}, "one of model, imagenet, none, got 'mine'"),
    (TOY, {'amp': 'fp8'}, "amp is one of bf16, fp16, got 'fp8'"),
])
def test_bad_input_gets_one_sentence(text, given, words):
    with pytest.raises(InputError, match=words) as caught:
        build_classifier(text, **given)
    assert '\n' not in str(caught.value.args[0])


def test_bad_weights_get_one_sentence(tmp_path, capsys):
    (tmp_path / 'text.pth').write_text('no weights')
    with pytest.raises(ValueError, match='expected a checkpoint that loads without running code, got .*text.pth'):
        build_classifier('pit_ti', weights=str(tmp_path / 'text.pth'))
    (tmp_path / 'code.pth').write_bytes(pickle.dumps({'state_dict': Code()}, protocol=2))
    with pytest.raises(ValueError, match='expected a checkpoint that loads without running code'):
        build_classifier('pit_ti', weights=str(tmp_path / 'code.pth'))
    torch.save({'state_dict': Code()}, tmp_path / 'code2.pth')
    with pytest.raises(ValueError, match='expected a checkpoint that loads without running code'):
        build_classifier('pit_ti', weights=str(tmp_path / 'code2.pth'))
    assert 'ran' not in capsys.readouterr().out
    torch.save(timm.create_model('resnet18').state_dict(), tmp_path / 'other.pth')
    for name in ('pit_ti', 'torchvision:vit_b_16', TOY):
        with pytest.raises(ValueError, match=f'expected weights of {name} in .*other.pth, got other ones') as caught:
            build_classifier(name, weights=str(tmp_path / 'other.pth'))
        assert '\n' not in str(caught.value)


def test_what_gives_no_logits_is_refused():
    preparation = Preparation(Preprocess(32, None))
    with pytest.raises(ValueError, match=r'expected logits \(B, classes\) from x, got shape \(1, 3, 32, 32\)'):
        ClassifierPredictor(torch.nn.Identity(), preparation, name='x').classes()
    with pytest.raises(ValueError, match='expected a classifier of 32 x 32 images, got an error of x: '):
        ClassifierPredictor(torch.nn.Linear(7, 2), preparation, name='x').classes()


def test_images_of_a_size_that_the_model_refuses_get_one_sentence():
    predictor = build_classifier('vit_tiny_patch16_224(img_size=32)', weights='random', preprocess='none')
    with pytest.raises(ValueError,
                       match='expected images that vit_tiny.* takes, got 48 x 48: .*--img-size'):
        logits(predictor, samples(1, 48))


def test_a_traced_prediction_has_the_same_logits_and_the_maps():
    pytest.importorskip('pit_downstream.attention.trace', reason='attention tracing is not here yet')
    predictor, given = build_classifier('pit_ti', weights='random'), samples(1)
    batch = predictor.collate(given)
    outputs = predictor.predict(batch.images, batch, trace=True)
    assert torch.equal(outputs.predictions, logits(predictor, given))
    assert outputs.trace.maps['softmax']['stage3.block4'].shape == (1, 8, 50, 50)
    assert predictor.predict(batch.images, batch).trace is None
