"""Accuracy of a classifier in mmengine's evaluation loops."""

import logging
from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS
from torch import Tensor

from pit_downstream.metrics.classification import compute_top_k_errors


UNREADABLE = -1  # label of an image that could not be read


@METRICS.register_module()
class TopAccuracy(BaseMetric):
    """Top-k accuracy: share of images whose class is among the k largest logits ('accuracy/top1', 'accuracy/top5').

    Non-finite logits count as wrong. Images labeled UNREADABLE are excluded, as in the evaluation tools, and a warning
    counts them. The result is nan if no image is left. Each image counts once for any number of ranks and any batch
    size, since mmengine drops the samples that its sampler repeats to fill the last batches.
    """

    default_prefix = 'accuracy'

    def __init__(self, topk: tuple[int, ...] = (1, 5), **options):
        super().__init__(**options)
        self.topk = topk

    def process(self, data_batch: dict, data_samples: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Add a batch. `data_samples` has (logits (K,), label) per image."""
        logits, labels = map(torch.stack, zip(*data_samples, strict=True))
        logits, finite = logits.float(), logits.isfinite().all(1)
        readable = labels != UNREADABLE
        right = [finite & ~compute_top_k_errors(logits, labels.where(readable, 0), k) for k in self.topk]
        self.results += [row if known else None
                         for row, known in zip(torch.stack(right, dim=1).tolist(), readable.tolist(), strict=True)]

    def compute_metrics(self, results: list[list[bool] | None]) -> dict[str, float]:
        readable = [row for row in results if row is not None]
        if len(readable) < len(results):
            print_log(f'{len(results) - len(readable)} of {len(results)} images were unreadable: the accuracy rests on '
                      f'the other {len(readable)}', logger='current', level=logging.WARNING)
        shares = torch.tensor(readable).double().mean(0).tolist() if readable else [float('nan')] * len(self.topk)
        return {f'top{k}': share for k, share in zip(self.topk, shares, strict=True)}
