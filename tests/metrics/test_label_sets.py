"""Restricted, many-to-one and multi-label errors, counted by hand and by numpy."""

import numpy as np
import pytest
import torch

from pit_downstream.utils.protocols import Batch, Outputs, Sample
from pit_downstream.metrics.label_sets import LabelSetError, compute_label_set_errors, predict_classes

LOGITS = torch.tensor([[0., 9., 2., 1.], [3., 3., 0., 3.], [0., 1., 2., 8.]])


def update(metric, logits, targets):
    samples = tuple(Sample(str(i), None, target) for i, target in enumerate(targets))
    metric.update(Outputs(logits), Batch(images=None, valid=None, samples=samples))


def test_the_best_of_some_classes():
    assert predict_classes(LOGITS).tolist() == [1, 0, 3]  # of equals the first
    assert predict_classes(LOGITS, torch.tensor([0, 2])).tolist() == [2, 0, 2]
    assert predict_classes(LOGITS, torch.tensor([2, 3])).tolist() == [2, 3, 3]


def test_one_answer_among_some_classes():
    """As the authors of ImageNet-A and -R measure: logits[:, indices], then the place of the class among them."""
    random = np.random.default_rng(0)
    logits, classes = random.normal(size=(300, 1000)), np.sort(random.choice(1000, 200, replace=False))
    labels = random.choice(classes, 300)
    wanted = np.mean(logits[:, classes].argmax(1) != np.searchsorted(classes, labels))
    metric = LabelSetError('top1_error', classes=classes.tolist())
    update(metric, torch.tensor(logits), labels.tolist())
    assert metric.compute() == {'top1_error': wanted} and metric.count == 300


def test_many_classes_map_to_one():
    """As MadryLab measures: the prediction among all classes, mapped; what maps to nothing is wrong."""
    random = np.random.default_rng(1)
    logits, group = random.normal(size=(300, 30)), random.integers(-1, 3, 30)
    labels = random.integers(0, 3, 300)
    metric = LabelSetError()
    update(metric, torch.tensor(logits), [tuple(np.flatnonzero(group == label)) for label in labels])
    assert metric.compute() == {'answer_error': np.mean(group[logits.argmax(1)] != labels)}


def test_several_labels_and_none():
    metric = LabelSetError('real', answers=lambda sample: {0: (1, 2), 1: (), 2: (0,)}[sample.target])
    update(metric, LOGITS, [0, 1, 2])
    assert metric.compute() == {'real': .5} and metric.count == 2
    assert compute_label_set_errors(LOGITS, [(1, 2), (1, 2, 3), (0,)]).tolist() == [False, True, True]
    update(metric, LOGITS, [1, 1, 1])  # a batch without any changes nothing
    assert metric.compute() == {'real': .5} and metric.count == 2


def test_the_split_into_batches_makes_no_difference():
    logits = torch.randn(100, 20, generator=torch.Generator().manual_seed(0))
    targets = [(i % 20, (i + 1) % 20) for i in range(100)]
    values = []
    for size in (100, 9, 1):
        metric = LabelSetError(classes=range(3, 20))
        for start in range(0, 100, size):
            update(metric, logits[start:start + size], targets[start:start + size])
        values.append((metric.compute(), metric.count))
    assert values[0] == values[1] == values[2]


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match='expected at least one image, got none'):
        LabelSetError().compute()
    with pytest.raises(ValueError, match='expected logits of 6 classes at least, got 4; give a model of the 1000'):
        update(LabelSetError(), LOGITS, [(0, 5), 1, 1])
    with pytest.raises(ValueError, match='expected logits of 1000 classes at least, got 4'):
        update(LabelSetError(classes=[0, 999]), LOGITS, [0, 1, 1])
    metric = LabelSetError()
    update(metric, torch.tensor([[float('nan')] * 4, [1., 0., 0., 0.]]), [0, 0])
    with pytest.raises(ValueError, match='got NaN or infinity for 1 of 2 images'):
        metric.compute()
