"""Attention collapse as a metric: the measures of attention/collapse.py per block, averaged over images."""

from collections.abc import Iterator
from itertools import combinations, groupby
from typing import Any

from torch import Tensor

from pit_downstream.attention import collapse
from pit_downstream.attention.trace import Trace
from pit_downstream.utils.errors import InputError

Measured = tuple[str, tuple[str, ...]]  # a metric and the layer of its block, or the layers of the compared blocks


class AttentionCollapse:
    """Collapse measures averaged over images. `outputs.trace` is the Trace of one batch.

    threshold: a block is similar if its similarity to the previous block is above this (collapse.count_similar_blocks).
    `compute` returns values named 'metric@layer'. The kind is 'softmax', or 'reattention' for Re-attention blocks:
      {kind}_similarity@block1:block2             cross-layer similarity of two blocks (of the same stage)
      {kind}_similar_blocks(threshold=0.9)@       number of similar blocks of the model or of one stage (the layer)
      {kind}_similar_ratio(threshold=0.9)@        the number of similar blocks divided by the number of blocks
      {kind}_head_similarity@block1               similarity among the heads of a block with two or more heads
      {kind}_rank@block1                          effective rank of a map, mean over heads
      softmax_entropy@block1                      in nats
      softmax_distance@block1                     in patches of the block's grid
      token_similarity@block1, token_rank@block1  of the block's output patch tokens
    Sums are kept in float64 on the device of the trace, so the batch size makes no difference.
    """

    needs_trace = True
    higher_is_better = False

    def __init__(self, *, threshold: float = 0.9):
        collapse.require_cosine(threshold)
        self.threshold = threshold
        self.reset()

    def reset(self) -> None:
        self.count = 0
        self._sums: dict[Measured, Tensor] = {}

    def update(self, outputs: Any, batch: Any = None) -> None:
        """Add the images of one traced batch."""
        measured = {**dict(measure_blocks(outputs.trace)), **dict(measure_similarities(outputs.trace))}
        if self.count and measured.keys() != self._sums.keys():
            raise InputError('expected a trace of the same blocks as before, got other ones; reset between two models')
        for name, values in measured.items():
            self._sums[name] = self._sums.get(name, 0) + values.detach().double().sum(0)
        self.count += len(next(iter(outputs.trace.tokens.values())))

    def compute(self) -> dict[str, float]:
        if not self.count:
            raise InputError('expected at least one image, got none; update the metric before computing it')
        numbers: dict[str, float] = {}
        for (metric, layers), total in self._sums.items():
            mean = (total / self.count).cpu()
            numbers |= self._summarize_matrix(metric, layers,
                                              mean) if mean.ndim else {f'{metric}@{layers[0]}': mean.item()}
        return numbers

    def _summarize_matrix(self, metric: str, layers: tuple[str, ...], matrix: Tensor) -> dict[str, float]:
        """Return the pairwise values of one mean similarity matrix (L, L), and number and ratio of similar blocks."""
        kind, stage, said = metric.removesuffix('_similarity'), get_stage(layers[0]), f'threshold={self.threshold}'
        pairs = {f'{metric}@{layers[i]}:{layers[j]}': matrix[i, j].item()
                 for i, j in combinations(range(len(layers)), 2)}
        blocks = collapse.count_similar_blocks(matrix, threshold=self.threshold)
        return {**pairs, f'{kind}_similar_blocks({said})@{stage}': float(blocks),
                f'{kind}_similar_ratio({said})@{stage}': blocks / len(layers)}


def measure_blocks(trace: Trace) -> Iterator[tuple[Measured, Tensor]]:
    """Yield ((metric, (layer,)), values (B,)) for every measure of a single block."""
    for kind, maps in trace.maps.items():
        for layer, one in maps.items():
            if one.shape[1] > 1:
                yield (f'{kind}_head_similarity', (layer,)), collapse.compute_head_similarity(one)
            yield (f'{kind}_rank', (layer,)), collapse.compute_effective_rank(one).mean(1)
    for layer, tokens in trace.tokens.items():
        softmax, patches = trace.maps['softmax'][layer], tokens[:, trace.count_prefix_tokens(layer):]
        yield ('softmax_entropy', (layer,)), collapse.compute_attention_entropy(softmax)
        yield ('softmax_distance', (layer,)), collapse.compute_attention_distance(softmax, trace.grids[layer])
        if patches.shape[1] > 1:
            yield ('token_similarity', (layer,)), collapse.compute_token_similarity(patches)
        yield ('token_rank', (layer,)), collapse.compute_effective_rank(patches)


def measure_similarities(trace: Trace) -> Iterator[tuple[Measured, Tensor]]:
    """Yield ((metric, layers), (B, L, L)): cross-layer similarity per stage, or of all blocks without stages."""
    for kind, maps in trace.maps.items():
        for _, group in groupby(maps, key=get_stage):
            layers = tuple(group)
            yield (f'{kind}_similarity', layers), collapse.compute_similarity_matrix([maps[layer] for layer in layers])


def get_stage(layer: str) -> str:
    """Return 'stage2' for 'stage2.block4', '' for 'block4'."""
    return layer.rpartition('.')[0]
