"""Accuracy of a classifier in mmengine's evaluation loops."""

import logging
from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS
from torch import Tensor

from pit_downstream.metrics.classification import top_k_errors


UNREADABLE = -1  # label of an image that could not be read


@METRICS.register_module()
class TopAccuracy(BaseMetric):
    """Share of images whose class is among the k with the largest logits: 'accuracy/top1', 'accuracy/top5'.

    Logits that are not finite are wrong. Images labeled UNREADABLE are left out, as the measuring tools do, and a
    warning counts them; nan where no image is left. Each image counts once, however many ranks and with whatever
    batches: mmengine drops what its sampler repeats to fill up the last ones.
    """

    default_prefix = 'accuracy'

    def __init__(self, topk: tuple[int, ...] = (1, 5), **options):
        super().__init__(**options)
        self.topk = topk

    def process(self, data_batch: dict, data_samples: Sequence[tuple[Tensor, Tensor]]) -> None:
        """data_samples: (logits (K,), label) of each image."""
        logits, labels = map(torch.stack, zip(*data_samples, strict=True))
        logits, finite = logits.float(), logits.isfinite().all(1)
        readable = labels != UNREADABLE
        right = [finite & ~top_k_errors(logits, labels.where(readable, 0), k) for k in self.topk]
        self.results += [row if known else None
                         for row, known in zip(torch.stack(right, dim=1).tolist(), readable.tolist(), strict=True)]

    def compute_metrics(self, results: list[list[bool] | None]) -> dict[str, float]:
        readable = [row for row in results if row is not None]
        if len(readable) < len(results):
            print_log(f'{len(results) - len(readable)} of {len(results)} images were unreadable: the accuracy rests on '
                      f'the other {len(readable)}', logger='current', level=logging.WARNING)
        shares = torch.tensor(readable).double().mean(0).tolist() if readable else [float('nan')] * len(self.topk)
        return {f'top{k}': share for k, share in zip(self.topk, shares, strict=True)}
