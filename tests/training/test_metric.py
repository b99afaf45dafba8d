"""Accuracy by hand."""

import torch

from pit_downstream.training.metric import TopAccuracy


def samples(logits, labels):
    return list(zip(torch.tensor(logits), torch.tensor(labels), strict=True))


def test_top_k_by_hand():
    metric = TopAccuracy(topk=(1, 2))
    metric.process({}, samples([[3., 2., 1.], [3., 2., 1.]], [0, 1]))
    metric.process({}, samples([[3., 2., 1.]], [2]))
    assert metric.evaluate(3) == {'accuracy/top1': 1 / 3, 'accuracy/top2': 2 / 3}


def test_what_a_sampler_repeats_to_fill_up_is_dropped():
    metric = TopAccuracy(topk=(1,))
    metric.process({}, samples([[1., 0.], [0., 1.], [1., 0.]], [0, 0, 0]))
    assert metric.evaluate(2) == {'accuracy/top1': 0.5}


def test_logits_that_are_not_finite_are_wrong():
    metric = TopAccuracy(topk=(1, 5))
    metric.process({}, samples([[float('nan'), 0.], [float('inf'), 0.], [1., 0.]], [0, 0, 0]))
    assert metric.evaluate(3) == {'accuracy/top1': 1 / 3, 'accuracy/top5': 1 / 3}
