"""Counts against the papers' tables, timm's and torchvision's published figures, and arithmetic by hand."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import get_model, get_model_weights

import pit_downstream.backbones  # noqa: F401
from pit_downstream.backbones.deepvit import ReAttention
from pit_downstream.evaluation.complexity import REST, Part, classifier_complexity, complexity
from pit_downstream.evaluation.model_cost import Facts, groups, sum_parts

# 'FLOPs' in G and parameters in M as naver-ai/pit's README prints them; only of PiT-Ti it prints 4.9 where its code
# has 4.85. Activations in M: timm, results/benchmark-infer-fp32-nchw-pt240-cpu-i7_12700h-dynamo.csv at aa4b5850.
PIT = {'pit_ti': ('0.71', '4.8', 6.19), 'pit_xs': ('1.4', '10.6', 7.71), 'pit_s': ('2.9', '23.5', 11.56),
       'pit_b': ('12.5', '73.8', 32.94)}
# Sizes of naver-ai/pit's pit.py: patch, width, heads do not count, grids, depths
PIT_SIZES = {'pit_ti': (16, 64, (27, 14, 7), (2, 6, 4)), 'pit_xs': (16, 96, (27, 14, 7), (2, 6, 4)),
             'pit_s': (16, 144, (27, 14, 7), (2, 6, 4)), 'pit_b': (14, 256, (31, 16, 8), (3, 6, 4))}
# dvit_repo's models/deep_vision_transformer.py: width, plain blocks, blocks with Re-attention, convolutional stem, side
DEEPVIT_SIZES = {'deepvit_16': (384, 0, 16, False, 224), 'deepvit_24': (384, 0, 24, False, 224),
                 'deepvit_32': (384, 0, 32, False, 224), 'deepvit_s': (396, 11, 5, True, 224),
                 'deepvit_l': (420, 20, 12, True, 224), 'deepvit_l_384': (420, 20, 12, True, 384)}
DEEPVIT_PARAMETERS = {'deepvit_16': 24_426_664, 'deepvit_24': 36_261_448, 'deepvit_32': 48_096_232,
                      'deepvit_s': 27_312_632, 'deepvit_l': 58_883_708, 'deepvit_l_384': 59_043_308}


def without_weights(name):
    with torch.device('meta'):
        return timm.create_model(name)


def block_macs(tokens, width, ratio, mixed_heads=0):
    """qkv and proj, the mlp, both products of attention, and Re-attention's mixing of the heads of every pair."""
    return ((4 + 2 * ratio) * tokens * width ** 2 + 2 * tokens ** 2 * width + (mixed_heads * tokens) ** 2)


def pit_macs(patch, width, grids, depths):
    macs, widths = 0, [width, 2 * width, 4 * width]
    for i, (grid, depth) in enumerate(zip(grids, depths, strict=True)):
        macs += depth * block_macs(grid ** 2 + 1, widths[i], 4)
        if i:  # one input channel for each output channel of the 3 x 3 convolution; a linear layer for the class token
            macs += grid ** 2 * widths[i] * 9 + widths[i - 1] * widths[i]
    return macs + grids[0] ** 2 * width * 3 * patch ** 2 + 1000 * widths[-1]


def deepvit_macs(width, plain, mixed, conv_stem, side):
    patches = (side // 16) ** 2
    stem = 64 * (side // 2) ** 2 * (3 * 7 ** 2 + 64 * 3 ** 2) + patches * width * 64 * 8 ** 2
    return ((stem if conv_stem else patches * width * 3 * 16 ** 2) + 1000 * width
            + plain * block_macs(patches + 1, width, 3) + mixed * block_macs(patches + 1, width, 3, mixed_heads=12))


@pytest.mark.parametrize('name', PIT)
def test_pit_is_the_papers_table(name):
    """Its FLOPs are multiply-adds and one operation for every value of biases, norms, sums, GELU and softmax."""
    found, (flops, parameters, activations) = classifier_complexity(without_weights(name), 224, 224), PIT[name]
    decimals = len(flops.split('.')[1])
    assert f'{(found.macs + found.elementwise) / 1e9:.{decimals}f}' == flops
    assert f'{found.parameters / 1e6:.1f}' == parameters
    assert round(found.activations / 1e6, 2) == activations
    assert found.macs == pit_macs(*PIT_SIZES[name]) and found.flops == 2 * found.macs


@pytest.mark.parametrize('name', DEEPVIT_SIZES)
def test_deepvit_by_hand(name):
    """Its paper's FLOPs were not found; the parameters are those of the official code."""
    sizes = DEEPVIT_SIZES[name]
    found = classifier_complexity(without_weights(name), sizes[-1], sizes[-1])
    assert (found.parameters, found.macs) == (DEEPVIT_PARAMETERS[name], deepvit_macs(*sizes))


@pytest.mark.parametrize('name', ['resnet18', 'vit_b_16'])
def test_torchvision_publishes_the_same(name):
    """vit_b_16 runs nn.MultiheadAttention, which has a kernel of its own for inference."""
    published = get_model_weights(name).DEFAULT.meta
    with torch.device('meta'):
        found = classifier_complexity(get_model(name, weights=None), 224, 224)
    assert (round(found.macs / 1e9, 3), found.parameters) == (published['_ops'], published['num_params'])


class Attending(nn.Module):
    def forward(self, tokens):
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


def test_the_fused_attention_of_a_cpu_costs_what_its_formula_does():
    tokens = torch.randn(2, 3, 50, 16)
    model = Attending()
    for placed in (tokens, tokens.to('meta')):
        found = complexity(model, lambda placed=placed: model(placed))
        maps, values = 2 * 3 * 50 * 50, 2 * 3 * 50 * 16
        assert found.macs == 2 * maps * 16
        assert (found.activations, found.elementwise) == (maps + values, maps + 2 * values)


@pytest.mark.parametrize('budget', [None, 1])
def test_reattention_counts_the_same_in_chunks(budget):
    """At the smallest budget one row of the maps at a time."""
    heads, dim, tokens = 4, 8, 37
    model = ReAttention(heads * dim, heads, budget=budget).eval().requires_grad_(False)
    found = complexity(model, lambda: model(torch.randn(1, tokens, heads * dim)))
    linear = 4 * tokens * (heads * dim) ** 2
    assert found.macs == linear + 2 * tokens ** 2 * heads * dim + (heads * tokens) ** 2
    assert {part.name: part.macs for part in found.parts if part.macs} == {
        'qkv': linear * 3 // 4, 'proj': linear // 4, REST: found.macs - linear}


def test_other_sizes_and_real_arithmetic():
    model = timm.create_model('pit_ti').eval().requires_grad_(False)
    images = torch.zeros(1, 3, 48, 65)
    assert complexity(model, lambda: model(images)) == classifier_complexity(model, 48, 65)


def test_parts_add_up_however_they_are_called():
    class Odd(nn.Module):
        """Calls a grandchild without its parents."""

        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Sequential(nn.Linear(4, 5, bias=False)))
            self.stages = nn.ModuleList([nn.Linear(5, 6), nn.Linear(6, 7)])
            self.scale = nn.Parameter(torch.ones(5, 5))

        def forward(self, values):
            values = self.inner[0][0](values) @ self.scale
            for stage in self.stages:
                values = stage(values)
            return values
    model = Odd().requires_grad_(False)
    found = complexity(model, lambda: model(torch.zeros(3, 4)))
    assert found.parts == (Part('inner', 20, 2 * 60), Part('stages.0', 36, 2 * 90), Part('stages.1', 49, 2 * 126),
                           Part(REST, 25, 2 * 75))
    assert groups(found.parts)[1] == Part('stages', 85, 2 * 216)
    assert sum_parts(found.parts[1:3], indent='  ').name == '  stages.0 to stages.1'
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    split = complexity(model, lambda: model(torch.zeros(3, 4)), split=('inner',))
    assert split.parts[0].name == 'inner.0' and split.macs == found.macs


class Asking(nn.Linear):
    """Wants to know a value."""

    def forward(self, images):
        return super().forward(images) * (1 if images.sum().item() >= 0 else 2)


def test_a_model_that_the_meta_device_cannot_run():
    assert classifier_complexity(Asking(65, 7), 48, 65).macs == 3 * 48 * 65 * 7


def test_a_size_that_the_model_refuses():
    with pytest.raises(ValueError, match='expected a size that the model takes, got 48 x 65: .* give another --shape'):
        classifier_complexity(timm.create_model('vit_tiny_patch16_224'), 48, 65)


def test_text_and_numbers_agree():
    found = classifier_complexity(without_weights('pit_s'), 224, 224)
    facts = Facts('pit_s', (224, 224), found, 'nowhere')
    text, numbers = facts.as_text(), facts.as_dict()
    assert '23.46 M' in text and '2.871 G' in text and '5.742 G' in text and 'memory' not in text
    assert (numbers['parameters'], numbers['macs'], numbers['flops']) == (23_461_912, found.macs, 2 * found.macs)
    assert sum(part['macs'] for part in numbers['parts']) == sum(one['macs'] for one in numbers['groups']) == found.macs
    assert numbers['memory'] is None and numbers['timings'] == []
