"""What every detection backbone owes: shapes, strides, gradients, freezing, memory modes, loading."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from pit_downstream.backbones import PiT
from pit_downstream.backbones.pit import ARCHS

SIZES = [(224, 224), (800, 1333), (513, 769), (64, 48), (32, 32)]
LEVELS = [levels for k in (1, 2, 3) for levels in itertools.combinations(range(3), k)]


def expected_grid(arch, padding, side):
    """Grids of the three stages along one side, from the convolution formula of the paper's appendix."""
    if padding == 'valid':
        first = (side - arch.patch_size) // arch.stride + 1
    else:
        first = math.ceil(side / arch.stride)
    second = math.ceil(first / 2)
    return first, second, math.ceil(second / 2)


@pytest.mark.parametrize('padding', ['valid', 'same'])
@pytest.mark.parametrize('name', ARCHS)
def test_shapes(name, padding):
    backbone = PiT(name, stem_padding=padding).to('meta').eval()
    for height, width in SIZES:
        maps = backbone(torch.empty(1, 3, height, width, device='meta'))
        rows = expected_grid(ARCHS[name], padding, height)
        columns = expected_grid(ARCHS[name], padding, width)
        assert [tuple(m.shape) for m in maps] == [
            (1, channels, h, w) for channels, h, w in zip(backbone.out_channels, rows, columns)]


@pytest.mark.parametrize('name, grids', [('s', (27, 14, 7)), ('b', (31, 16, 8))])
def test_paper_grids_at_224(name, grids):
    """Table 1 of the paper: 27/14/7, and 31/16/8 for PiT-B."""
    assert expected_grid(ARCHS[name], 'valid', 224) == grids


def test_real_maps_are_contiguous_and_finite_at_odd_sizes():
    backbone = PiT('ti').eval()
    for height, width in [(513, 769), (64, 48), (33, 32)]:
        maps = backbone(torch.randn(2, 3, height, width))
        assert all(m.is_contiguous() and m.isfinite().all() for m in maps)


def test_same_padding_gives_exact_strides():
    backbone = PiT('ti', stem_padding='same').eval()
    maps = backbone(torch.randn(1, 3, 640, 96))
    assert [tuple(m.shape[-2:]) for m in maps] == [(80, 12), (40, 6), (20, 3)]


def test_same_padding_centres_the_features():
    """Flipping image and kernel flips the stem's map: the zeros are shared evenly where stride divides the side."""
    stem = PiT('ti', stem_padding='same').patch_embed.double()
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    expected = stem(images).flip(-1)
    stem.conv.weight.data = stem.conv.weight.data.flip(-1)
    torch.testing.assert_close(stem(images.flip(-1)), expected)


@pytest.mark.parametrize('levels', LEVELS)
def test_every_parameter_has_a_gradient(levels):
    backbone = PiT('ti', out_indices=levels, drop_path_rate=0.1).train()
    sum(m.square().sum() for m in backbone(torch.randn(2, 3, 64, 64))).backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize('levels', LEVELS)
def test_published_channels_and_strides(levels):
    backbone = PiT('b', out_indices=levels)
    assert backbone.out_channels == tuple((256, 512, 1024)[i] for i in levels)
    assert backbone.out_strides == tuple((7, 14, 28)[i] for i in levels)
    assert len(backbone.transformers) == levels[-1] + 1


def test_checkpointing_changes_nothing_but_memory():
    torch.manual_seed(0)
    plain = PiT('ti', drop_path_rate=0.2).train()
    recomputed = PiT('ti', drop_path_rate=0.2, with_cp=True).train()
    recomputed.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    for backbone in (plain, recomputed):
        torch.manual_seed(1)  # the same paths are dropped in both
        sum(m.sin().sum() for m in backbone(images)).backward()
    for (name, p), q in zip(plain.named_parameters(), recomputed.parameters()):
        torch.testing.assert_close(p.grad, q.grad, msg=name)


@pytest.mark.parametrize('frozen', [-1, 0, 1, 2, 3])
def test_freezing(frozen):
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


def fused_step(backbone):
    """A fused optimiser leaves the parameter's version counter alone."""
    backbone.train()(torch.randn(1, 3, 64, 64))[0].sum().backward()
    torch.optim.AdamW(backbone.parameters(), lr=0.1, fused=True).step()


def average_swap(backbone):
    """As mmengine's EMA hook exchanges weights, before each validation."""
    backbone.train()
    backbone.pos_embed.data.copy_(backbone.pos_embed.data + 1)


def reload(backbone):
    backbone.load_state_dict({name: value + 1 for name, value in backbone.state_dict().items()})


@pytest.mark.parametrize('change', [fused_step, average_swap, reload])
def test_cached_position_embedding_never_outlives_a_change(change):
    backbone, images = PiT('ti').eval(), torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        before = backbone(images)[0]
        assert len(backbone._grids) == 1 and torch.equal(backbone(images)[0], before)
    change(backbone)
    with torch.no_grad():
        after = backbone.eval()(images)[0]
        backbone._grids.clear()
        assert torch.equal(after, backbone(images)[0]) and not torch.equal(after, before)


def test_position_embedding_learns_at_every_size():
    backbone = PiT('ti').train()
    backbone(torch.randn(1, 3, 96, 64))[0].sum().backward()
    assert backbone.pos_embed.grad.abs().sum() > 0


def test_cached_in_inference_mode_is_usable_for_training():
    backbone = PiT('ti').eval().requires_grad_(False)
    images = torch.randn(1, 3, 96, 64)
    with torch.inference_mode():
        backbone(images)
    images.requires_grad_()
    backbone(images)[0].sum().backward()
    assert images.grad.abs().sum() > 0


def test_output_norm_can_be_left_out():
    assert isinstance(PiT('ti', out_norm=False).norm0, nn.Identity)
    norms = [f'norm{i}.{part}' for i in (0, 2) for part in ('weight', 'bias')]
    backbone = PiT('ti', out_indices=(0, 2))
    assert [name for name in backbone.state_dict() if name.startswith('norm')] == norms


@pytest.mark.parametrize('kwargs, words', [
    ({'arch': 'xl'}, "arch is one of ti, xs, s, b, got 'xl'"),
    ({'out_indices': (0, 3)}, r'out_indices are some of \(0, 1, 2\) in rising order, got \(0, 3\)'),
    ({'out_indices': ()}, 'out_indices'),
    ({'frozen_stages': 4}, 'frozen_stages is -1..3, got 4'),
    ({'stem_padding': 'full'}, "stem_padding is 'valid' or 'same', got 'full'"),
])
def test_bad_arguments_get_one_sentence(kwargs, words):
    with pytest.raises(ValueError, match=words):
        PiT(**kwargs)


def test_too_small_an_image_gets_one_sentence():
    with pytest.raises(ValueError, match='at least 16x16 pixels, got 8x64'):
        PiT('ti')(torch.zeros(1, 3, 8, 64))
