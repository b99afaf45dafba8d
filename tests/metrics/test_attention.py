"""The metric against the measures themselves on all images at once, and its protocol."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import pit_downstream.backbones as backbones
from pit_downstream.attention import collapse
from pit_downstream.attention.trace import Trace, trace_attention
from pit_downstream.backbones.deepvit import ARCHS
from pit_downstream.backbones.deepvit import DeepVitClassifier
from pit_downstream.metrics.attention import AttentionCollapse, measure_similarities
from pit_downstream.results.outcomes import Outcomes
from tests.metrics.collect import collect, compute

pytestmark = pytest.mark.numeric


def deepvit():
    """Two plain and two Re-attention blocks."""
    arch = backbones.vit.VitArch(24, 3, 4, plain=2, img_size=48)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHS, 'small', arch)
        torch.manual_seed(0)
        return DeepVitClassifier('small', num_classes=5).eval()


IMAGES = torch.randn(7, 3, 48, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def traced(model, images):
    with trace_attention(model) as trace:
        model(images)
    return trace


def computed(model, *batches, threshold=0.9):
    metric = AttentionCollapse(threshold=threshold)
    return measure(metric, *(SimpleNamespace(trace=traced(model, batch)) for batch in batches))


def measure(metric, *outputs):
    """Return the numbers of a metric over traced batches."""
    sizes = [len(next(iter(one.trace.tokens.values()))) for one in outputs]
    starts = np.cumsum([0, *sizes])
    return compute(metric, collect([metric], [(one, None, np.arange(start, start + size)) for one, start, size in zip(
        outputs, starts, sizes)], sum(sizes)))


def hand_made(*maps, grid=(1, 2)):
    """A trace of one image whose blocks have these maps (heads, N, N)."""
    layers = [f'block{i}' for i in range(1, len(maps) + 1)]
    return SimpleNamespace(trace=Trace(
        maps={'softmax': dict(zip(layers, (one[None] for one in maps)))},
        tokens={layer: torch.eye(maps[0].shape[-1])[None] for layer in layers},
        grids=dict.fromkeys(layers, grid)))


def test_is_the_mean_of_the_measures():
    model = deepvit()
    trace, values = traced(model, IMAGES), computed(model, IMAGES)
    for layer, maps in trace.maps['softmax'].items():
        expected = {'softmax_head_similarity': collapse.compute_head_similarity(maps),
                    'softmax_rank': collapse.compute_effective_rank(maps),
                    'softmax_entropy': collapse.compute_attention_entropy(maps),
                    'softmax_distance': collapse.compute_attention_distance(maps, (3, 4)),
                    'token_similarity': collapse.compute_token_similarity(trace.tokens[layer][:, 1:]),
                    'token_rank': collapse.compute_effective_rank(trace.tokens[layer][:, 1:])}
        for metric, numbers in expected.items():
            assert values[f'{metric}@{layer}'] == pytest.approx(numbers.mean().item(), rel=1e-5)
    maps = trace.maps['reattention']
    similarity = collapse.compute_column_similarity(maps['block3'], maps['block4']).mean().item()
    assert values['reattention_similarity@block3:block4'] == pytest.approx(similarity, rel=1e-5)


def test_names_of_a_plain_transformer():
    names = set(computed(deepvit(), IMAGES))
    blocks = [f'block{i}' for i in range(1, 5)]
    plain = {f'{metric}@{layer}' for layer in blocks for metric in (
        'softmax_head_similarity', 'softmax_rank', 'softmax_entropy', 'softmax_distance', 'token_similarity',
        'token_rank')}
    pairs = {f'softmax_similarity@{a}:{b}' for i, a in enumerate(blocks) for b in blocks[i + 1:]}
    mixed = {f'reattention_{metric}@{layer}' for metric in ('head_similarity', 'rank') for layer in blocks[2:]}
    counts = {f'{kind}_similar_{what}(threshold=0.9)@' for kind in ('softmax', 'reattention')
              for what in ('blocks', 'ratio')}
    assert names == plain | pairs | mixed | counts | {'reattention_similarity@block3:block4'}


def test_pit_is_compared_within_a_stage():
    values = computed(backbones.PiT('ti').eval(), torch.randn(2, 3, 64, 64))
    pairs = [name.split('@')[1].split(':') for name in values if name.startswith('softmax_similarity@')]
    assert len(pairs) == 1 + 15 + 6
    assert all(first.split('.')[0] == second.split('.')[0] for first, second in pairs)
    assert {name.split('@')[1] for name in values if 'similar_blocks' in name} == {'stage1', 'stage2', 'stage3'}


@pytest.mark.parametrize('sizes', [(1,) * 7, (3, 4), (6, 1)])
def test_batches_make_no_difference(sizes):
    """A batch of 7 equals 7 of 1, up to the float32 of the model itself."""
    model = deepvit()
    whole, parts = computed(model, IMAGES), computed(model, *IMAGES.split(sizes))
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert parts[name] == pytest.approx(value, rel=1e-5), name


def test_by_hand():
    """Columns: uniform against identity cosine 1 / sqrt 3; the third block repeats the second."""
    uniform, identity = torch.full((1, 3, 3), 1 / 3), torch.eye(3)[None]
    values = measure(AttentionCollapse(), hand_made(uniform, identity, identity))
    assert values['softmax_similarity@block1:block2'] == pytest.approx(3 ** -0.5)
    assert values['softmax_similarity@block2:block3'] == pytest.approx(1)
    assert values['softmax_similar_blocks(threshold=0.9)@'] == 1
    assert values['softmax_similar_ratio(threshold=0.9)@'] == pytest.approx(1 / 3)
    assert values['softmax_entropy@block1'] == pytest.approx(math.log(3)) and values['softmax_entropy@block2'] == 0
    assert values['softmax_distance@block1'] == pytest.approx(0.5)  # of two patches side by side
    assert values['softmax_rank@block1'] == pytest.approx(1) and values['softmax_rank@block2'] == pytest.approx(3)
    assert values['token_similarity@block1'] == 0 and values['token_rank@block1'] == pytest.approx(2)
    assert not any('head_similarity' in name for name in values)  # one head


def test_threshold_counts_the_mean_over_images():
    """Neighbors of cosine 1 in one image and 1 / sqrt 3 in the other: mean 0.789, neither image alone decides."""
    uniform, identity = torch.full((1, 3, 3), 1 / 3), torch.eye(3)[None]
    for threshold, blocks in ((0.7, 1), (0.9, 0)):
        values = measure(AttentionCollapse(threshold=threshold), hand_made(uniform, identity),
                         hand_made(identity, identity))
        assert values[f'softmax_similar_blocks(threshold={threshold})@'] == blocks


def test_values_are_those_of_each_image():
    uniform, identity = torch.full((1, 3, 3), 1 / 3), torch.eye(3)[None]
    metric = AttentionCollapse()
    outcomes = collect([metric], [(hand_made(uniform), None, [0]), (hand_made(identity), None, [1])], 2)
    assert outcomes.get_dense('softmax_rank@block1').tolist() == pytest.approx([1, 3])
    assert {value.count for value in metric.compute(outcomes)} == {2}


def test_matrices_are_symmetric_with_ones():
    _, layers, matrix = next(iter(measure_similarities(traced(deepvit(), IMAGES))))
    assert layers == ('block1', 'block2', 'block3', 'block4') and matrix.shape == (7, 4, 4)
    torch.testing.assert_close(matrix, matrix.mT)
    torch.testing.assert_close(matrix.diagonal(dim1=1, dim2=2), torch.ones(7, 4))


def test_bad_input_gets_one_sentence():
    with pytest.raises(ValueError, match=r'threshold is a cosine in \[-1, 1\], got 90'):
        AttentionCollapse(threshold=90)
    with pytest.raises(ValueError, match='no image has a value'):
        AttentionCollapse().compute(Outcomes(2))
