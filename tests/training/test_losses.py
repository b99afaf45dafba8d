"""What is minimised, against numbers and formulas by hand."""

import copy
import math

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F

import pit_downstream.training.registration  # noqa: F401  registers the preprocessor
from pit_downstream.attention.trace import trace_attention
from pit_downstream.training.image_classifier import ImageClassifier, compute_cosine_penalty
from pit_downstream.training.distillation import Distillation, compute_distillation_loss

pytestmark = pytest.mark.numeric

PREPROCESSOR = dict(type='ClassifierPreprocessor', mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5), num_classes=3)


def built(name, **options):
    torch.manual_seed(0)
    size = {} if name == 'resnet10t' else dict(img_size=32)
    return ImageClassifier(dict(name=name, num_classes=3, **size), data_preprocessor=PREPROCESSOR, **options)


def test_penalty_is_the_mean_cosine_along_the_heads():
    """Three maps of two heads and one token: cos((1, 0), (1, 1)) = 0.7071, cos((1, 1), (0, 2)) = 0.7071 and 1."""
    maps = [torch.tensor(heads).view(1, 2, 1, 1) for heads in ([1., 0.], [1., 1.], [0., 2.])]
    assert compute_cosine_penalty(maps[:2]).item() == pytest.approx(1 / math.sqrt(2))
    assert compute_cosine_penalty(maps).item() == pytest.approx(1 / math.sqrt(2))
    assert compute_cosine_penalty([maps[0], maps[2], 3 * maps[2]]).item() == pytest.approx(0.5)


def test_penalty_of_many_maps_equals_numpys():
    random = np.random.default_rng(0)
    maps = random.normal(size=(4, 2, 3, 5, 5))
    expected = np.mean([np.dot(one[b, :, i, j], other[b, :, i, j])
                        / np.linalg.norm(one[b, :, i, j]) / np.linalg.norm(other[b, :, i, j])
                        for one, other in zip(maps, maps[1:]) for b in range(2) for i in range(5) for j in range(5)])
    assert compute_cosine_penalty(torch.from_numpy(maps)).item() == pytest.approx(expected)


@pytest.mark.parametrize('name, kind', [('deepvit_16', 'reattention'), ('pit_ti', 'softmax')])
def test_the_penalised_maps_are_the_first_that_multiply_values(name, kind):
    """Two pairs of the first three blocks; PiT's are of one size only within its first stage of two blocks."""
    pairs = 2 if name == 'deepvit_16' else 1
    model = built(name, regularizer=dict(pairs=pairs, weight=0.1)).train()
    images, targets = torch.randn(2, 3, 32, 32), torch.eye(3)[:2]
    losses = model(images, targets, mode='loss')
    with trace_attention(model.network) as trace:
        logits = model.network(images)
    maps = list(trace.maps[kind].values())[:pairs + 1]
    assert losses['loss_likeness'].item() == pytest.approx(0.1 * compute_cosine_penalty(maps).item(), rel=1e-4)
    assert losses['loss_class'].item() == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-4)
    losses['loss_likeness'].backward()
    assert model.network.patch_embed.get_parameter('proj.weight' if kind == 'reattention' else 'conv.weight').grad.any()


@pytest.mark.parametrize('options, words', [
    (dict(name='pit_ti_distilled'), 'name a teacher with --cfg-options model.distillation.teacher'),
    (dict(name='pit_ti', distillation=dict(teacher='pit_ti', kind='hard')), "take the '_distilled' network"),
    (dict(name='resnet10t', regularizer=dict(pairs=2, weight=1.)), 'no patches and transformer blocks'),
    (dict(name='pit_ti', regularizer=dict(pairs=2)), 'expected model.regularizer with pairs and weight'),
    (dict(name='pit_ti', regularizer=dict(pairs=0, weight=1.)), r'pairs in 1\.\.1.*got 0'),
    (dict(name='deepvit_16', regularizer=dict(pairs=16, weight=1.)), r'pairs in 1\.\.15, .* in deepvit_16, got 16'),
    (dict(name='pit_ti', regularizer=dict(pairs=2, weight=1.)), r'pairs in 1\.\.1, '),
])
def test_what_does_not_belong_together_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        built(**options)


TEACHER = torch.log(torch.tensor([[0.7, 0.2, 0.1]]))
STUDENT = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))


def test_hard_and_soft_targets_by_hand():
    assert compute_distillation_loss(STUDENT, TEACHER, kind='hard').item() == pytest.approx(math.log(2))
    divergence = 0.7 * math.log(0.7 / 0.5) + 0.2 * math.log(0.2 / 0.25) + 0.1 * math.log(0.1 / 0.25)
    assert compute_distillation_loss(STUDENT, TEACHER, kind='soft').item() == pytest.approx(divergence / 3, rel=1e-5)


def test_temperature_flattens_both():
    """At temperature 2 probabilities become their square roots, normalized; the loss is times 4."""
    def rooted(values):
        roots = [math.sqrt(value) for value in values]
        return [root / sum(roots) for root in roots]
    teacher, student = rooted([0.7, 0.2, 0.1]), rooted([0.5, 0.25, 0.25])
    divergence = sum(t * math.log(t / s) for t, s in zip(teacher, student))
    loss = compute_distillation_loss(STUDENT, TEACHER, kind='soft', tau=2.0)
    assert loss.item() == pytest.approx(4 * divergence / 3, rel=1e-5)


def test_teacher_trains_the_second_head_with_its_normalization():
    """Each loss counts (1 - alpha) and alpha; the teacher is neither trained nor kept, and a copy shares it."""
    options = dict(teacher='deepvit_16(img_size=32,num_classes=3)', weights='random', kind='hard', alpha=0.25)
    model = built('pit_ti_distilled', distillation=options).train()
    shown, targets = torch.rand(2, 3, 32, 32), torch.eye(3)[:2]
    mean, std = (torch.tensor(PREPROCESSOR[key]).view(3, 1, 1) for key in ('mean', 'std'))
    losses = model((shown - mean) / std, targets, mode='loss')
    own, distilled = model.network((shown - mean) / std)
    with torch.no_grad():
        told = model.distillation.teacher.model((shown - 0.5) / 0.5).argmax(1)
    assert losses['loss_class'].item() == pytest.approx(0.75 * F.cross_entropy(own, targets).item(), rel=1e-5)
    assert losses['loss_distilled'].item() == pytest.approx(0.25 * F.cross_entropy(distilled, told).item(), rel=1e-4)
    assert all(name.startswith('network.') for name in model.state_dict())
    assert copy.deepcopy(model).distillation is model.distillation


def test_a_teacher_of_other_classes_is_refused():
    options = dict(teacher='deepvit_16(img_size=32,num_classes=4)', weights='random', kind='soft')
    model = built('pit_ti_distilled', distillation=options).train()
    with pytest.raises(ValueError, match='expected a teacher of 3 classes, got deepvit_16.* with 4'):
        model(torch.zeros(2, 3, 32, 32), torch.eye(3)[:2], mode='loss')


@pytest.mark.parametrize('options, words', [
    (dict(kind='warm'), "kind is one of hard, soft, got 'warm'"), (dict(kind='soft', tau=0), 'tau above 0')])
def test_bad_distillation_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Distillation(teacher='pit_ti', weights='random', **options)


def test_any_network_of_timm_trains():
    model = built('resnet10t')
    assert isinstance(model.network, timm.models.ResNet)
    assert model(torch.zeros(2, 3, 32, 32), torch.eye(3)[:2], mode='loss')['loss_class'].isfinite()
