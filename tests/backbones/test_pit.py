"""PiT against the official code's outputs and against timm's port under the same weights."""

import copy

import pytest
import timm
import torch
from torch import nn

import pit_downstream.backbones as backbones
from pit_downstream.backbones import PiT
from tests.reference import formula
from tests.tolerances import assert_near

MODELS = [f'pit_{arch}{kind}' for arch in ('ti', 'xs', 's', 'b') for kind in ('', '_distilled')]
TIMM = {name: name.replace('_distilled', '_distilled_224') if 'distilled' in name else f'{name}_224' for name in MODELS}
PARAMETERS = {  # naver-ai/pit's models as timm 1.0.31 counts them
    'pit_ti': 4_847_272, 'pit_ti_distilled': 5_104_336, 'pit_xs': 10_618_888, 'pit_xs_distilled': 11_003_984,
    'pit_s': 23_461_912, 'pit_s_distilled': 24_039_056, 'pit_b': 73_764_840, 'pit_b_distilled': 74_790_096}


@pytest.fixture(scope='module', params=MODELS)
def named_model(request):
    model = timm.create_model(request.param).eval()
    model.load_state_dict(formula.weights(formula.SHAPES[request.param]))
    return request.param, model


def test_names_shapes_and_count_are_official(named_model):
    name, model = named_model
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == formula.SHAPES[name]
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert getattr(backbones, name) is timm.models.model_entrypoint(name)


@pytest.mark.numeric
@torch.no_grad()
def test_equals_timm(named_model):
    name, model = named_model
    twin = timm.create_model(TIMM[name]).eval()
    twin.load_state_dict(timm.models.pit.checkpoint_filter_fn(model.state_dict(), twin))
    backbone = PiT(name.split('_')[1], distilled='distilled' in name, out_norm=False).eval()
    backbone.load_state_dict(twin.state_dict())
    images = formula.images()[:1].double()
    theirs, twins = twin.double().forward_intermediates(images)
    assert_near(copy.deepcopy(model).double()(images), twin.forward_head(theirs), 'network')
    for ours, theirs in zip(backbone.double()(images), twins, strict=True):
        assert_near(ours, theirs, 'network')


@pytest.mark.numeric
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize('name', ['pit_ti', 'pit_s', 'pit_b_distilled'])
@torch.no_grad()
def test_equals_official_outputs(name, dtype):
    """Which were computed in float32: as far as that goes, in float64 on every CPU alike."""
    state = formula.weights(formula.SHAPES[name])
    images, expected = formula.images().to(dtype), formula.expected(name)
    model = timm.create_model(name).eval()
    model.load_state_dict(state)
    assert_near(model.to(dtype)(images), expected['logits'], 'network', dtype=torch.float32)
    backbone = PiT(name.split('_')[1], distilled='distilled' in name, out_norm=False).eval()
    backbone.load_state_dict(state)
    for i, grid in enumerate(backbone.to(dtype)(images[:1])):
        assert_near(grid[0, :4], expected[f'stage{i}'], 'network', dtype=torch.float32)


@torch.no_grad()
def test_valid_stem_is_bit_equal_to_the_formula_at_224():
    """At the native size nothing is padded or resampled: a bare convolution plus the stored embedding."""
    backbone = PiT('s').eval()
    images = formula.images()
    conv = backbone.patch_embed.conv
    expected = nn.functional.conv2d(images, conv.weight, conv.bias, stride=8) + backbone.pos_embed
    seen = []
    backbone.transformers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    backbone(images)
    assert torch.equal(seen[0], expected)


def test_distilled_heads():
    model = timm.create_model('pit_ti_distilled', num_classes=5)
    images = torch.randn(2, 3, 64, 64)
    assert [tuple(logits.shape) for logits in model.train()(images)] == [(2, 5), (2, 5)]
    cls, distilled = model.train()(images)
    torch.testing.assert_close(model.eval()(images), (cls + distilled) / 2)


def test_classifier_takes_any_size_and_new_heads():
    model = timm.create_model('pit_ti', num_classes=3, drop_path_rate=0.1).eval()
    assert model(torch.randn(1, 3, 96, 160)).shape == (1, 3)
    model.reset_classifier(0)
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 256)
    assert model.forward_head(torch.randn(2, 1, 256), pre_logits=True).shape == (2, 256)


def test_data_config_is_the_papers():
    config = timm.data.resolve_model_data_config(timm.create_model('pit_s'))
    assert config['crop_pct'] == 0.9 and config['interpolation'] == 'bicubic'
    assert config['mean'] == (0.485, 0.456, 0.406) and config['std'] == (0.229, 0.224, 0.225)


def test_drop_path_follows_the_official_rule():
    stages = PiT('s', drop_path_rate=0.12).transformers
    rates = [block.drop_path.drop_prob for stage in stages for block in stage.blocks]
    assert rates == [pytest.approx(0.12 * i / 12) for i in range(12)]
