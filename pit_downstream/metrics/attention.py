"""Attention collapse as a metric: the measures of attention/collapse.py per block, averaged over images."""

import math
from collections.abc import Iterator, Mapping
from itertools import combinations, groupby
from typing import Any

import torch
from torch import Tensor

from pit_downstream.attention import collapse
from pit_downstream.attention.trace import Trace
from pit_downstream.metrics.classification import require_images
from pit_downstream.results.outcomes import Outcomes
from pit_downstream.utils.protocols import MetricValue
from pit_downstream.utils.registry import METRICS


@METRICS.register('attention')
class AttentionCollapse:
    """Collapse measures per image and layer, and their means over images. `outputs.trace` is the Trace of one batch.

    The numbers of a layer are, for the kinds 'softmax' and, in Re-attention blocks, 'reattention':
      {kind}_similarity               cross-layer similarity of two blocks of a stage; the layer is 'block1:block2'
      {kind}_similar_blocks(threshold=0.9)   number of similar blocks of the model or of the stage that is the layer
      {kind}_similar_ratio(threshold=0.9)    the number of similar blocks divided by the number of blocks
      {kind}_head_similarity          similarity among the heads of a block with two or more heads
      {kind}_rank                     effective rank of a map, mean over heads
      softmax_entropy                 in nats
      softmax_distance                in patches of the block's grid
      token_similarity, token_rank    of the block's output patch tokens

    Args:
        threshold: A block is similar if its similarity to the previous block is above this
            (collapse.count_similar_blocks).
    """

    needs_trace = True
    name = 'attention'
    value_names = ('attention',)  # 1 for a traced image; the values of layers depend on the model

    def __init__(self, *, threshold: float = 0.9):
        collapse.require_cosine(threshold)
        self.threshold = threshold
        self.record_name = f'softmax_similar_ratio(threshold={threshold})'

    def measure(self, outputs: Any, batch: Any = None) -> dict[str, Tensor]:
        """Return per-image values (B,) by 'metric@layer'."""
        trace = outputs.trace
        values = {f'{metric}@{layers[0]}': value.detach() for metric, layers, value in measure_blocks(trace)}
        for metric, layers, matrices in measure_similarities(trace):
            values |= {f'{metric}@{layers[i]}:{layers[j]}': matrices[:, i, j].detach()
                       for i, j in combinations(range(len(layers)), 2)}
        first = next(iter(trace.tokens.values()))
        return {**values, 'attention': torch.ones(len(first), dtype=torch.bool, device=first.device)}

    def compute(self, outcomes: Outcomes, samples: Any = None) -> list[MetricValue]:
        """Return the means over the images, with the number of similar blocks of the mean similarities."""
        count = int(outcomes.is_known('attention').sum())
        require_images(count)
        means = {name: math.fsum(outcomes.get_values(name).astype(float)) / count for name in outcomes.names
                 if '@' in name}
        numbers = [MetricValue(metric, mean, count, layer) for name, mean in means.items()
                   for metric, layer in [name.split('@')]]
        return sorted([*self._count_similar_blocks(means, count), *numbers],
                      key=lambda value: value.metric == self.record_name)

    def _count_similar_blocks(self, means: Mapping[str, float], count: int) -> Iterator[MetricValue]:
        """Yield number and ratio of similar blocks, from the mean similarities of every kind and stage."""
        ranks = [name.split('_rank@') for name in means if '_rank@' in name and not name.startswith('token')]
        for (kind, stage), group in groupby(ranks, key=lambda rank: (rank[0], get_stage(rank[1]))):
            layers = [layer for _, layer in group]
            matrix = torch.eye(len(layers), dtype=torch.float64)
            for i, j in combinations(range(len(layers)), 2):
                matrix[i, j] = matrix[j, i] = means[f'{kind}_similarity@{layers[i]}:{layers[j]}']
            blocks = collapse.count_similar_blocks(matrix, threshold=self.threshold)
            suffix = f'(threshold={self.threshold})'
            yield MetricValue(f'{kind}_similar_blocks{suffix}', float(blocks), count, stage)
            yield MetricValue(f'{kind}_similar_ratio{suffix}', blocks / len(layers), count, stage)


def measure_blocks(trace: Trace) -> Iterator[tuple[str, tuple[str, ...], Tensor]]:
    """Yield (metric, (layer,), values (B,)) for every measure of a single block."""
    for kind, maps in trace.maps.items():
        for layer, one in maps.items():
            if one.shape[1] > 1:
                yield f'{kind}_head_similarity', (layer,), collapse.compute_head_similarity(one)
            yield f'{kind}_rank', (layer,), collapse.compute_effective_rank(one).mean(1)
    for layer, tokens in trace.tokens.items():
        softmax, patches = trace.maps['softmax'][layer], tokens[:, trace.count_prefix_tokens(layer):]
        yield 'softmax_entropy', (layer,), collapse.compute_attention_entropy(softmax)
        yield 'softmax_distance', (layer,), collapse.compute_attention_distance(softmax, trace.grids[layer])
        if patches.shape[1] > 1:
            yield 'token_similarity', (layer,), collapse.compute_token_similarity(patches)
        yield 'token_rank', (layer,), collapse.compute_effective_rank(patches)


def measure_similarities(trace: Trace) -> Iterator[tuple[str, tuple[str, ...], Tensor]]:
    """Yield (metric, layers, (B, L, L)): cross-layer similarity per stage, or of all blocks without stages."""
    for kind, maps in trace.maps.items():
        for _, group in groupby(maps, key=get_stage):
            layers = tuple(group)
            yield f'{kind}_similarity', layers, collapse.compute_similarity_matrix([maps[layer] for layer in layers])


def get_stage(layer: str) -> str:
    """Return 'stage2' for 'stage2.block4', '' for 'block4'."""
    return layer.rpartition('.')[0]
