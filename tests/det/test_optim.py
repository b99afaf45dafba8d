"""Learning-rate and weight-decay rules compose, where mmengine's longest-key rule forgets one of them."""

import pytest
import torch
from torch import nn

import pit_downstream.det  # noqa: F401
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from pit_downstream.backbones import DeepViT, PiT
from pit_downstream.det.optim import format_groups, build_parameter_groups


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.conv = nn.Conv2d(3, 4, 1)
        self.backbone.norm = nn.LayerNorm(4)
        self.backbone.pos_embed = nn.Parameter(torch.zeros(1, 4, 2, 2))
        self.backbone.sampling_offsets = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)
        self.frozen = nn.Linear(1, 1).requires_grad_(False)


def names_by_rule(model, groups):
    names = {id(p): name for name, p in model.named_parameters()}
    return {(g['lr'], g['weight_decay']): {names[id(p)] for p in g['params']} for g in groups}


def test_groups():
    model = Detector()
    groups = build_parameter_groups(model, 1.0, 0.5, lr_mult={'backbone': 0.5, 'sampling_offsets': 0.5})
    assert names_by_rule(model, groups) == {
        (1.0, 0.5): {'head.weight'},
        (1.0, 0.0): {'head.bias'},
        (0.5, 0.5): {'backbone.conv.weight'},
        (0.5, 0.0): {'backbone.conv.bias', 'backbone.norm.weight', 'backbone.norm.bias', 'backbone.pos_embed'},
        (0.25, 0.5): {'backbone.sampling_offsets.weight'},
        (0.25, 0.0): {'backbone.sampling_offsets.bias'},
    }
    assert [g['lr'] for g in groups] == sorted((g['lr'] for g in groups), reverse=True)


def test_mmengine_builds_it_from_a_config():
    init_default_scope('mmdet')
    model = Detector()
    wrapper = build_optim_wrapper(model, dict(
        type='OptimWrapper', constructor='PitOptimWrapperConstructor', clip_grad=dict(max_norm=1.0),
        optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.2), paramwise_cfg=dict(lr_mult={'backbone': 0.5})))
    rules = names_by_rule(model, wrapper.optimizer.param_groups)
    assert rules[0.1, 0.2] == {'head.weight'} and rules[0.05, 0.2] >= {'backbone.conv.weight'}
    assert wrapper.clip_grad_kwargs == {'max_norm': 1.0}


# From the stem up, by hand. A pool is as deep as the block it feeds; norms of levels and pyramids are the last.
PIT_S = {
    0: {'patch_embed', 'pos_embed', 'cls_token'},
    1: {'transformers.0.blocks.0'}, 2: {'transformers.0.blocks.1'},
    3: {'pools.0', 'transformers.1.blocks.0'}, 4: {'transformers.1.blocks.1'}, 5: {'transformers.1.blocks.2'},
    6: {'transformers.1.blocks.3'}, 7: {'transformers.1.blocks.4'}, 8: {'transformers.1.blocks.5'},
    9: {'pools.1', 'transformers.2.blocks.0'}, 10: {'transformers.2.blocks.1'}, 11: {'transformers.2.blocks.2'},
    12: {'transformers.2.blocks.3'}, 13: {'norm0', 'norm1', 'norm2'}}
DEEPVIT_S = {0: {'patch_embed', 'pos_embed', 'cls_token'}, **{i + 1: {f'blocks.{i}'} for i in range(16)},
             17: {'norm3', 'norm7', 'norm11', 'norm15', 'pyramid'}}


class WithHead(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(4, 2)


@pytest.mark.parametrize('backbone, layers', [(PiT, PIT_S), (DeepViT, DEEPVIT_S)])
def test_every_layer_has_its_rate(backbone, layers):
    with torch.device('meta'):
        model = WithHead(backbone('s'))
    groups = build_parameter_groups(model, 1.0, 0.1, lr_mult={'backbone': 0.5}, layer_decay=0.8)
    names, seen = {id(p): name for name, p in model.named_parameters()}, set()
    for group in groups:
        for name in (names[id(parameter)] for parameter in group['params']):
            parts = [part for parts in layers.values() for part in parts if f'{name}.'.startswith(f'backbone.{part}.')]
            [layer] = [layer for layer, parts_ in layers.items() if set(parts) & parts_] or ['head']
            assert group['lr'] == pytest.approx(1.0 if layer == 'head' else 0.5 * 0.8 ** (max(layers) - layer)), name
            assert len(parts) == (layer != 'head'), name
            seen |= set(parts)
    assert seen == set().union(*layers.values())
    assert sum(len(group['params']) for group in groups) == len(names)
    bare = [names[id(p)] for group in groups if group['weight_decay'] == 0 for p in group['params']]
    assert {'backbone.pos_embed', 'backbone.cls_token', 'head.bias'} <= set(bare)
    assert not any(name.endswith(('qkv.weight', 'proj.weight', 'fc1.weight')) for name in bare)


def test_table_lists_features_by_tool(logged):
    init_default_scope('mmdet')
    with torch.device('meta'):
        model = WithHead(PiT('ti', out_indices=(0,)))
    cfg = dict(type='OptimWrapper', constructor='PitOptimWrapperConstructor',
               optimizer=dict(type='SGD', lr=0.1, weight_decay=0.05), paramwise_cfg=dict(layer_decay=0.5))
    wrapper = build_optim_wrapper(model, cfg)
    table = format_groups(model, wrapper.optimizer.param_groups).splitlines()
    assert [line.split(maxsplit=4) for line in table[1:]] == [  # by hand: a block of width 64 holds 49,984 values
        ['1.000e-01', '0.05', '1', '8', 'head'],
        ['1.000e-01', '0', '3', '130', 'backbone layer 3, head'],
        ['5.000e-02', '0.05', '4', '49,152', 'backbone layer 2'],
        ['5.000e-02', '0', '8', '832', 'backbone layer 2'],
        ['2.500e-02', '0.05', '4', '49,152', 'backbone layer 1'],
        ['2.500e-02', '0', '8', '832', 'backbone layer 1'],
        ['1.250e-02', '0.05', '1', '49,152', 'backbone layer 0'],  # 64 patches of 3 x 16 x 16
        ['1.250e-02', '0', '3', '46,784', 'backbone layer 0']]  # 27 x 27 places and a class token of 64, and a bias
    assert 'parameter groups:\n' + '\n'.join(table) in logged


@pytest.mark.parametrize('model, decay, words', [
    (WithHead(nn.Linear(2, 2)), 0.8, r'needs a backbone with get_layer_depth\(name, prefix\), got Linear'),
    (WithHead(nn.Linear(2, 2)), 1.2, r'a factor in \(0, 1\], got 1.2'),
    (WithHead(nn.Linear(2, 2)), 0, r'a factor in \(0, 1\], got 0')])
def test_refuses_layers_it_cannot_know(model, decay, words):
    with pytest.raises(ValueError, match=words):
        build_parameter_groups(model, 1.0, 0.1, layer_decay=decay)


def test_accepts_any_backbone_with_get_layer_depth():
    """As mmpretrain's do: (layer, number of layers) for a name and its prefix."""
    backbone = nn.Linear(2, 2)
    backbone.get_layer_depth = lambda name, prefix: ({'weight': 0, 'bias': 2}[name.removeprefix(prefix)], 3)
    groups = build_parameter_groups(WithHead(backbone), 1.0, 0.0, layer_decay=0.5)
    assert [(group['lr'], len(group['params'])) for group in groups] == [(1.0, 3), (0.25, 1)]
