"""Learning-rate and weight-decay rules compose, where mmengine's longest-key rule forgets one of them."""

import torch
from torch import nn

import pit_downstream.det  # noqa: F401
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from pit_downstream.det.optim import parameter_groups


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
    groups = parameter_groups(model, 1.0, 0.5, lr_mult={'backbone': 0.5, 'sampling_offsets': 0.5})
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
