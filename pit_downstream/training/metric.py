"""Accuracy of a classifier in mmengine's evaluation loops."""

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from torch import Tensor

from ..metrics.classification import top_k_errors


@METRICS.register_module()
class TopAccuracy(BaseMetric):
    """Share of pictures whose class is among the k with the largest logits: 'accuracy/top1', 'accuracy/top5'.

    Logits that are not finite are wrong. Each picture counts once, however many ranks and with whatever batches:
    mmengine drops what its sampler repeats to fill up the last ones.
    """

    default_prefix = 'accuracy'

    def __init__(self, topk: tuple[int, ...] = (1, 5), **options):
        super().__init__(**options)
        self.topk = topk

    def process(self, data_batch: dict, data_samples: Sequence[tuple[Tensor, Tensor]]) -> None:
        """data_samples: (logits (K,), label) of each picture."""
        logits, labels = map(torch.stack, zip(*data_samples, strict=True))
        logits, finite = logits.float(), logits.isfinite().all(1)
        right = [finite & ~top_k_errors(logits, labels, k) for k in self.topk]
        self.results += torch.stack(right, dim=1).tolist()

    def compute_metrics(self, results: list[list[bool]]) -> dict[str, float]:
        shares = torch.tensor(results).double().mean(0).tolist()
        return {f'top{k}': share for k, share in zip(self.topk, shares, strict=True)}
