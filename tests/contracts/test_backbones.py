"""What every detection backbone owes: shapes, strides, gradients, freezing, memory modes, loading."""

import copy
import itertools
import math
import pickle
from functools import partial

import pytest
import timm
import torch
from torch import nn

from pit_downstream.backbones import DeepViT, PiT, deepvit, pit
from tests.tolerances import assert_near

SIZES = [(224, 224), (800, 1333), (513, 769), (64, 48), (32, 32)]
LEVELS = [levels for k in (1, 2, 3) for levels in itertools.combinations(range(3), k)]
SMALL = {  # quick ones of every kind: Re-attention nowhere, everywhere, in the last block of twelve
    'PiT': partial(PiT, 'ti'),
    'DeepViT stages': partial(DeepViT, '16', out_indices=(0, 1, 2), out_strides=(4, 8, 32)),
    'DeepViT simple': partial(DeepViT, 's', pyramid='simple', out_indices=(11,), pyramid_channels=16),
}


@pytest.fixture(params=SMALL)
def build(request):
    torch.manual_seed(0)
    return SMALL[request.param]


def expected_grid(arch, padding, side):
    """Grids of the three stages along one side, from the convolution formula of the paper's appendix."""
    if padding == 'valid':
        first = (side - arch.patch_size) // arch.stride + 1
    else:
        first = math.ceil(side / arch.stride)
    second = math.ceil(first / 2)
    return first, second, math.ceil(second / 2)


@pytest.mark.parametrize('padding', ['valid', 'same'])
@pytest.mark.parametrize('name', pit.ARCHS)
def test_shapes_of_pit(name, padding):
    backbone = PiT(name, stem_padding=padding).to('meta').eval()
    for height, width in SIZES:
        maps = backbone(torch.empty(1, 3, height, width, device='meta'))
        rows = expected_grid(pit.ARCHS[name], padding, height)
        columns = expected_grid(pit.ARCHS[name], padding, width)
        assert [tuple(m.shape) for m in maps] == [
            (1, channels, h, w) for channels, h, w in zip(backbone.out_channels, rows, columns)]


@pytest.mark.parametrize('name, pyramid', [*((name, 'stages') for name in deepvit.ARCHS), ('s', 'simple')])
def test_shapes_of_deepvit(name, pyramid):
    backbone = DeepViT(name, pyramid=pyramid, budget=2 ** 32).to('meta').eval()
    width = 256 if pyramid == 'simple' else deepvit.ARCHS[name].width
    assert backbone.out_channels == (width,) * 4 and backbone.out_strides == (4, 8, 16, 32)
    for height, width in SIZES:
        h, w = math.ceil(height / 16), math.ceil(width / 16)
        maps = backbone(torch.empty(1, 3, height, width, device='meta'))
        assert [tuple(m.shape) for m in maps] == [(1, channels, *grid) for channels, grid in zip(
            backbone.out_channels, [(4 * h, 4 * w), (2 * h, 2 * w), (h, w), (math.ceil(h / 2), math.ceil(w / 2))])]


@pytest.mark.parametrize('name, grids', [('s', (27, 14, 7)), ('b', (31, 16, 8))])
def test_paper_grids_at_224(name, grids):
    """Table 1 of the paper: 27/14/7, and 31/16/8 for PiT-B."""
    assert expected_grid(pit.ARCHS[name], 'valid', 224) == grids


def test_real_maps_are_as_published_contiguous_and_finite_at_odd_sizes(build):
    backbone = build().eval()
    for height, width in [(257, 385), (64, 48), (33, 32)]:
        maps = backbone(torch.randn(2, 3, height, width))
        assert tuple(m.shape[1] for m in maps) == backbone.out_channels and len(maps) == len(backbone.out_strides)
        assert all(m.is_contiguous() and m.isfinite().all() for m in maps)


def without_weights(build):
    """The model on the CPU with whatever its memory holds: enough where no image goes through."""
    with torch.device('meta'):
        model = build()
    return model.to_empty(device='cpu')


@pytest.mark.parametrize('name', [*pit.default_cfgs, *deepvit.default_cfgs])
def test_classifiers_take_no_images(name):
    model = without_weights(partial(timm.create_model, name, num_classes=5))
    side = model.default_cfg['input_size'][-1]
    for height, width in [(side, side), (33, 64)]:
        assert model.eval()(torch.empty(0, 3, height, width)).shape == (0, 5)
        assert model.forward_features(torch.empty(0, 3, height, width)).shape[::2] == (0, model.num_features)


DETECTION = {
    **{f'PiT {name} {padding}': partial(PiT, name, stem_padding=padding)
       for name in pit.ARCHS for padding in ('valid', 'same')},
    **{f'PiT {name} distilled': partial(PiT, name, distilled=True) for name in pit.ARCHS},
    **{f'DeepViT {name} {pyramid}': partial(DeepViT, name, pyramid=pyramid)
       for name in deepvit.ARCHS for pyramid in ('stages', 'simple')}}


@pytest.mark.parametrize('name', DETECTION)
def test_detection_backbones_take_no_images(name):
    """The maps of no images have the shapes of one's."""
    backbone = without_weights(DETECTION[name]).eval()
    for height, width in [(64, 64), (33, 70)]:
        shapes = [tuple(one.shape) for one in backbone(torch.empty(0, 3, height, width))]
        alone = backbone.to('meta')(torch.empty(1, 3, height, width, device='meta'))
        assert shapes == [(0, *one.shape[1:]) for one in alone]
        backbone = backbone.to_empty(device='cpu')


def test_same_padding_gives_exact_strides():
    backbone = PiT('ti', stem_padding='same').eval()
    maps = backbone(torch.randn(1, 3, 640, 96))
    assert [tuple(m.shape[-2:]) for m in maps] == [(80, 12), (40, 6), (20, 3)]


def test_same_padding_centers_the_features():
    """Flipping image and kernel flips the stem's map: the zeros are shared evenly where stride divides the side."""
    stem = PiT('ti', stem_padding='same').patch_embed.double()
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    expected = stem(images).flip(-1)
    stem.conv.weight.data = stem.conv.weight.data.flip(-1)
    torch.testing.assert_close(stem(images.flip(-1)), expected)


def parameters_without_gradient(backbone):
    sum(m.square().sum() for m in backbone.train()(torch.randn(2, 3, 64, 64))).backward()
    return [name for name, p in backbone.named_parameters() if p.grad is None]


@pytest.mark.parametrize('levels', LEVELS)
def test_every_parameter_has_a_gradient(levels):
    assert parameters_without_gradient(PiT('ti', out_indices=levels, drop_path_rate=0.1)) == []
    assert parameters_without_gradient(DeepViT('16', out_indices=levels, out_strides=(4, 16, 32)[:len(levels)])) == []


@pytest.mark.parametrize('level', [0, 2])
def test_every_parameter_has_a_gradient_in_a_simple_pyramid(level):
    assert parameters_without_gradient(DeepViT('16', pyramid='simple', out_indices=(level,))) == []


@pytest.mark.parametrize('levels', LEVELS)
def test_published_channels_and_strides(levels):
    backbone = PiT('b', out_indices=levels)
    assert backbone.out_channels == tuple((256, 512, 1024)[i] for i in levels)
    assert backbone.out_strides == tuple((7, 14, 28)[i] for i in levels)
    assert len(backbone.transformers) == levels[-1] + 1


@pytest.mark.numeric
def test_checkpointing_changes_nothing_but_memory(build):
    plain = build(drop_path_rate=0.9).train()
    recomputed = build(drop_path_rate=0.9, with_cp=True).train()
    recomputed.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    for backbone in (plain, recomputed):
        torch.manual_seed(1)  # the same paths are dropped in both
        sum(m.sin().sum() for m in backbone(images)).backward()
    for p, q in zip(plain.parameters(), recomputed.parameters()):
        assert_near(p.grad, q.grad, 'gradient')
    assert all(torch.equal(p, q) for p, q in zip(plain.buffers(), recomputed.buffers()))  # each batch counted once


@pytest.mark.parametrize('frozen', [-1, 0, 1, 2, 3])
def test_freezing_pit(frozen):
    backbone = PiT('ti', frozen_stages=frozen)
    modes = [backbone, copy.deepcopy(backbone).eval().train()]
    for model in modes:  # right after building, and again after eval/train
        still = {name for name, p in model.named_parameters() if not p.requires_grad}
        wanted = set()
        if frozen >= 0:
            stages = [f'transformers.{i}.' for i in range(frozen)] + [f'pools.{i}.' for i in range(frozen - 1)]
            prefixes = ('pos_embed', 'cls_token', 'patch_embed.', *stages)
            wanted = {name for name, _ in model.named_parameters() if name.startswith(prefixes)}
        assert still == wanted
    if frozen > 0:
        assert not modes[1].transformers[0].training


@pytest.mark.parametrize('frozen', [-1, 0, 12, 13, 16])
def test_freezing_deepvit(frozen):
    backbone = DeepViT('s', frozen_stages=frozen).eval().train()
    prefixes = ('pos_embed', 'cls_token', 'patch_embed.', *(f'blocks.{i}.' for i in range(frozen)))
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == (frozen < 0 or not name.startswith(prefixes)), name
    norms = [backbone.patch_embed.bn1, *(backbone.blocks[i].attn.var_norm for i in (11, 12))]
    assert [norm.training for norm in norms] == [frozen < 0, frozen < 12, frozen < 13]


def test_batch_norms_can_keep_their_statistics():
    backbone = DeepViT('s', norm_eval=True)
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone(torch.randn(1, 3, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in backbone.named_buffers())
    assert backbone.blocks[-1].training and not backbone.blocks[-1].attn.var_norm.training


def fused_step(backbone):
    """A fused optimizer leaves the parameter's version counter alone."""
    backbone.train()(torch.randn(1, 3, 64, 64))[0].sum().backward()
    torch.optim.AdamW(backbone.parameters(), lr=0.1, fused=True).step()


def average_swap(backbone):
    """As mmengine's EMA hook exchanges weights, before each validation."""
    backbone.train()
    backbone.pos_embed.data.copy_(backbone.pos_embed.data + 1)


def reload(backbone):
    backbone.load_state_dict({name: value + 1 for name, value in backbone.state_dict().items()})


@pytest.mark.parametrize('change', [fused_step, average_swap, reload])
def test_cached_position_embedding_never_outlives_a_change(build, change):
    backbone, images = build().eval(), torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        before = backbone(images)[0]
        assert len(backbone._grids) == 1 and torch.equal(backbone(images)[0], before)
    change(backbone)
    with torch.no_grad():
        after = backbone.eval()(images)[0]
        backbone._grids.clear()
        assert torch.equal(after, backbone(images)[0]) and not torch.equal(after, before)


def test_position_embedding_learns_at_every_size(build):
    backbone = build().train()
    backbone(torch.randn(1, 3, 96, 64))[0].sum().backward()
    assert backbone.pos_embed.grad.abs().sum() > 0


def test_cached_in_inference_mode_is_usable_for_training(build):
    backbone = build().eval().requires_grad_(False)
    images = torch.randn(1, 3, 96, 64)
    with torch.inference_mode():
        backbone(images)
    images.requires_grad_()
    backbone(images)[0].sum().backward()
    assert images.grad.abs().sum() > 0


def test_a_backbone_can_be_pickled(build):
    backbone = build()
    again = pickle.loads(pickle.dumps(backbone))
    assert all(torch.equal(p, q) for p, q in zip(backbone.parameters(), again.parameters()))


def test_output_norm_can_be_left_out():
    assert isinstance(PiT('ti', out_norm=False).norm0, nn.Identity)
    norms = [f'norm{i}.{part}' for i in (0, 2) for part in ('weight', 'bias')]
    backbone = PiT('ti', out_indices=(0, 2))
    assert [name for name in backbone.state_dict() if name.startswith('norm')] == norms


@pytest.mark.parametrize('kind, kwargs, words', [
    (PiT, {'arch': 'xl'}, "arch is one of ti, xs, s, b, got 'xl'"),
    (PiT, {'out_indices': (0, 3)}, r'out_indices are some of \(0, 1, 2\) in rising order, got \(0, 3\)'),
    (PiT, {'out_indices': ()}, 'out_indices'),
    (PiT, {'frozen_stages': 4}, 'frozen_stages is -1..3, got 4'),
    (PiT, {'stem_padding': 'full'}, "stem_padding is 'valid' or 'same', got 'full'"),
    (DeepViT, {'arch': 'xl'}, "arch is one of 16, .*, vit_s, got 'xl'"),
    (DeepViT, {'out_indices': (3, 7, 11, 16)}, r'out_indices are some of 0..15 in rising order, got \(3, 7, 11, 16\)'),
    (DeepViT, {'out_indices': ()}, r"'stages' with 4 out_strides takes 4 out_indices, got \(\)"),
    (DeepViT, {'out_indices': (3, 7)}, r"'stages' with 4 out_strides takes 4 out_indices, got \(3, 7\)"),
    (DeepViT, {'out_indices': (3, 7), 'pyramid': 'simple'}, r"'simple' .* takes 1 out_indices, got \(3, 7\)"),
    (DeepViT, {'out_strides': (8, 64)}, r'out_strides are some of \(4, 8, 16, 32\) in rising order, got \(8, 64\)'),
    (DeepViT, {'pyramid': 'fpn'}, "pyramid is 'stages' or 'simple', got 'fpn'"),
    (DeepViT, {'frozen_stages': 17}, 'frozen_stages is -1..16, got 17'),
])
def test_bad_arguments_get_one_sentence(kind, kwargs, words):
    with pytest.raises(ValueError, match=words):
        kind(**kwargs)


def test_too_small_an_image_gets_one_sentence():
    with pytest.raises(ValueError, match='at least 16x16 pixels, got 8x64'):
        PiT('ti')(torch.zeros(1, 3, 8, 64))
