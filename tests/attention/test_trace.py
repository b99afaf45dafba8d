"""Traces of our models and of timm's against the maps that timm's own unfused code computes, and what they leave."""

import copy

import pytest
import timm
import torch
from torch import nn

import pit_downstream.backbones as backbones
from pit_downstream.attention.trace import trace_attention
from pit_downstream.backbones.deepvit import ARCHS
from pit_downstream.backbones.deepvit import DeepVitClassifier
from tests.tolerances import assert_near

pytestmark = pytest.mark.numeric

TIMM_SMALL = dict(img_size=48, patch_size=16, embed_dim=24, depth=3, num_heads=3, num_classes=5)


def seeded(build):
    """A model in eval mode whose weights are large enough that maps are far from uniform."""
    torch.manual_seed(0)
    model = build().eval()
    for name, parameter in model.named_parameters():
        if 'qkv' in name:
            nn.init.normal_(parameter, std=0.3)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, std=0.1), nn.init.uniform_(norm.running_var, 0.5, 2)
    return model


def deepvit(**kwargs):
    """Two plain and two Re-attention blocks."""
    arch = backbones.vit.VitArch(24, 3, 4, plain=2, adjust=0.5, transform_scale=True, img_size=48)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHS, 'small', arch)
        return DeepVitClassifier('small', num_classes=5, **kwargs)


MODELS = {
    'pit_ti': lambda: timm.create_model('pit_ti', num_classes=5),
    'pit_ti_distilled': lambda: timm.create_model('pit_ti_distilled', num_classes=5),
    'PiT': lambda: backbones.PiT('ti', stem_padding='same'),
    'deepvit': deepvit,
    'vit_s': lambda: timm.create_model('vit_s', num_classes=5),
    'timm vit': lambda: timm.models.VisionTransformer(**TIMM_SMALL),
    'timm registers': lambda: timm.models.VisionTransformer(**TIMM_SMALL, reg_tokens=4, qk_norm=True),
    'timm deit': lambda: timm.create_model('deit_tiny_distilled_patch16_224', num_classes=5),
    'timm pit': lambda: timm.create_model('pit_ti_224', num_classes=5),
}
SIDES = {'PiT': (64, 96), 'deepvit': (48, 80), 'timm vit': (48, 48), 'timm registers': (48, 48)}
GRIDS = {  # of every stage, or the only one
    'pit_ti': [(27, 27), (14, 14), (7, 7)], 'pit_ti_distilled': [(27, 27), (14, 14), (7, 7)],
    'timm pit': [(27, 27), (14, 14), (7, 7)], 'PiT': [(8, 12), (4, 6), (2, 3)], 'deepvit': [(3, 5)],
    'vit_s': [(14, 14)], 'timm vit': [(3, 3)], 'timm registers': [(3, 3)], 'timm deit': [(14, 14)]}
PREFIX = {'pit_ti_distilled': 2, 'timm deit': 2, 'timm registers': 5}
DEPTHS = {'pit_ti': (2, 6, 4), 'deepvit': 4, 'vit_s': 12, 'timm deit': 12, 'timm vit': 3, 'timm registers': 3}


def images(name):
    return torch.randn(2, 3, *SIDES.get(name, (224, 224)), generator=torch.Generator().manual_seed(1))


def places(name):
    depths = DEPTHS.get(name, DEPTHS['pit_ti'])
    if isinstance(depths, int):
        return [f'block{i + 1}' for i in range(depths)]
    return [f'stage{s + 1}.block{i + 1}' for s, depth in enumerate(depths) for i in range(depth)]


def flat(output):
    return output if isinstance(output, tuple) else (output,)


@pytest.fixture(scope='module', params=MODELS)
def traced(request):
    """(name, model, images, outputs before, trace, outputs inside, outputs after)."""
    name = request.param
    model, x = seeded(MODELS[name]), images(request.param)
    with torch.no_grad():
        before = flat(model(x))
        with trace_attention(model) as trace:
            inside = flat(model(x))
        after = flat(model(x))
    return name, model, x, before, trace, inside, after


def test_every_block_is_there_and_nothing_changes(traced):
    name, model, _, before, trace, inside, after = traced
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(before, inside, after))
    assert list(trace.tokens) == list(trace.maps['softmax']) == places(name)
    stages = [place.rpartition('.')[0] for place in trace.grids]
    assert [trace.grids[list(trace.grids)[stages.index(stage)]] for stage in dict.fromkeys(stages)] == GRIDS[name]
    for place, tokens in trace.tokens.items():
        height, width = trace.grids[place]
        assert trace.count_prefix_tokens(place) == PREFIX.get(name, 1) == tokens.shape[1] - height * width
        softmax = trace.maps['softmax'][place]
        assert softmax.shape[-1] == softmax.shape[-2] == tokens.shape[1]
        torch.testing.assert_close(softmax.sum(-1), torch.ones(softmax.shape[:-1]))


def test_nothing_is_left_on_the_model(traced):
    name, model, x, *_ = traced
    keys = set(vars(model)), list(model.state_dict())
    for module in model.modules():
        assert 'tap' not in vars(module) and not module._forward_hooks and not module._forward_pre_hooks
    with trace_attention(model):
        assert list(model.state_dict()) == keys[1]
    assert set(vars(model)) == keys[0]


def test_maps_are_those_of_the_unfused_formula(traced):
    """What multiplies the values: with it, the output of each attention is rebuilt from its input."""
    name, model, x, _, trace, *_ = traced
    seen = {}
    attentions = [module for key, module in model.named_modules() if key.endswith('attn')]
    handles = [module.register_forward_hook(lambda module, args, out: seen.update({module: (args[0], out)}))
               for module in attentions]
    with torch.no_grad():
        model(x)
        for place, attention in zip(trace.tokens, attentions, strict=True):
            maps = trace.maps.get('reattention', {}).get(place, trace.maps['softmax'][place])
            tokens, out = seen[attention]
            v = attention.qkv(tokens).unflatten(2, (3, maps.shape[1], -1))[:, :, 2].transpose(1, 2)
            rebuilt = attention.proj((maps @ v).transpose(1, 2).flatten(2))
            assert_near(rebuilt, out, 'block')
            assert maps.std(-1).max() > 1e-3  # no uniform maps, which would prove little
    for handle in handles:
        handle.remove()


@torch.no_grad()
def test_equals_timms_own_unfused_maps():
    model = seeded(MODELS['timm registers'])
    kept = []
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, args, out: kept.append(out))
    with trace_attention(model) as trace:
        model(images('timm registers'))
    for ours, theirs in zip(trace.maps['softmax'].values(), kept, strict=True):
        assert_near(ours, theirs, 'block')


@torch.no_grad()
def test_both_kinds_for_reattention():
    """The formula of the official code, and only in the blocks that have it; any number of tokens."""
    model = seeded(lambda: deepvit(consistent=True))
    with trace_attention(model) as trace:
        model(images('deepvit'))
    assert list(trace.maps['reattention']) == ['block3', 'block4']
    for place, mixed in trace.maps['reattention'].items():
        attention = model.blocks[int(place[5:]) - 1].attn
        ratio = 16 / 10  # 3x5 patches and the class token; 3x3 in training
        expected = attention.var_norm(attention.reatten_matrix(trace.maps['softmax'][place] * ratio)) / ratio
        assert_near(mixed, expected * 8 ** -0.5, 'block')


def test_training_uses_batch_statistics_and_keeps_running_ones():
    plain, traced = (seeded(deepvit).train() for _ in range(2))
    x = images('deepvit')
    with trace_attention(traced) as trace:
        ours = traced(x)
    torch.testing.assert_close(ours, plain(x), rtol=0, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(traced.buffers(), plain.buffers()))
    norm = traced.blocks[3].attn.var_norm
    mixed = trace.maps['reattention']['block4'] / 8 ** -0.5
    torch.testing.assert_close(mixed.mean((0, 2, 3)), norm.bias, atol=1e-5, rtol=0)


@pytest.mark.parametrize('name', ['deepvit', 'timm vit'])
def test_gradients_flow_through_the_maps(name):
    model, x = seeded(MODELS[name]), images(name).requires_grad_()
    with trace_attention(model) as trace:
        model(x)
    last = [list(maps.values())[-1] for maps in trace.maps.values()]
    sum(one.square().sum() for one in last).backward()
    assert x.grad.abs().sum() > 0


@torch.no_grad()
def test_autocast_keeps_maps_in_float32():
    model = seeded(deepvit)
    with trace_attention(model) as trace, torch.autocast('cpu', torch.bfloat16):
        model(images('deepvit'))
    for maps in trace.maps.values():
        assert all(one.dtype == torch.float32 for one in maps.values())


@torch.no_grad()
def test_the_last_forward_pass_is_shown_alone():
    model = seeded(deepvit)
    with trace_attention(model) as trace:
        model(images('deepvit'))
        model(torch.randn(1, 3, 32, 32))
    assert {tuple(one.shape) for one in trace.maps['softmax'].values()} == {(1, 3, 5, 5)}
    assert set(trace.grids.values()) == {(2, 2)}


@torch.no_grad()
def test_inside_a_wrapper():
    model = nn.Sequential(nn.Identity(), seeded(deepvit))
    with trace_attention(model) as trace:
        model(images('deepvit'))
    assert list(trace.tokens) == places('deepvit')


@torch.no_grad()
def test_closes_after_an_error():
    model = seeded(deepvit)
    with pytest.raises(ZeroDivisionError):
        with trace_attention(model):
            raise ZeroDivisionError
    assert all('tap' not in vars(module) for module in model.modules())
    with trace_attention(copy.deepcopy(model)) as trace:
        model(images('deepvit'))
    assert not trace.maps


@pytest.mark.parametrize('build, words', [
    (lambda: timm.create_model('resnet18'), "one of timm's ViT and DeiT, got ResNet, which has no patches"),
    (lambda: timm.create_model('beit_base_patch16_224', depth=1), 'got timm.models.beit.Attention at block1; such'),
    (lambda: timm.models.VisionTransformer(**TIMM_SMALL, block_fn=timm.models.vision_transformer.ParallelThingsBlock),
     'got builtins.NoneType at block1'),
])
def test_other_models_are_refused_untouched(build, words):
    model = build()
    with pytest.raises(ValueError) as error:
        with trace_attention(model):
            pass
    assert words in str(error.value)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_mask_and_a_second_trace_are_refused():
    model = seeded(MODELS['timm vit'])
    with trace_attention(model), pytest.raises(ValueError, match='expected attention over all tokens, got a mask'):
        model.blocks[0].attn(torch.randn(1, 10, 24), attn_mask=torch.zeros(10, 10))
    model = seeded(deepvit)
    with trace_attention(model), pytest.raises(ValueError, match='leave the first trace first'):
        with trace_attention(model):
            pass


@torch.no_grad()
def test_patch_dropout_is_refused():
    model = timm.models.VisionTransformer(**TIMM_SMALL, patch_drop_rate=0.5).train()
    with trace_attention(model) as trace:
        model(images('timm vit'))
    with pytest.raises(ValueError, match='without patch dropout'):
        trace.count_prefix_tokens('block1')
