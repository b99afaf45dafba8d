"""Restricted, many-to-one and multi-label errors, counted by hand and by numpy."""

import numpy as np
import pytest
import torch

from pit_downstream.utils.protocols import Batch, MetricValue, Outputs, Sample
from pit_downstream.metrics.label_sets import LabelSetError, compute_label_set_errors, predict_classes
from tests.metrics.collect import collect

LOGITS = torch.tensor([[0., 9., 2., 1.], [3., 3., 0., 3.], [0., 1., 2., 8.]])


def measure(metric, logits, targets, size=1000):
    """Return the number and count of a metric on images in batches of `size`."""
    samples = tuple(Sample(str(i), None, target) for i, target in enumerate(targets))
    parts = [slice(start, min(start + size, len(targets))) for start in range(0, len(targets), size)]
    outcomes = collect([metric], [(Outputs(logits[part]), Batch(None, None, samples[part]),
                                   np.arange(part.start, part.stop)) for part in parts], len(targets))
    (value,) = metric.compute(outcomes, None)
    return value


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
    assert measure(metric, torch.tensor(logits), labels.tolist()) == MetricValue('top1_error', wanted, 300)


def test_many_classes_map_to_one():
    """As MadryLab measures: the prediction among all classes, mapped; what maps to nothing is wrong."""
    random = np.random.default_rng(1)
    logits, group = random.normal(size=(300, 30)), random.integers(-1, 3, 30)
    labels = random.integers(0, 3, 300)
    targets = [tuple(np.flatnonzero(group == label)) for label in labels]
    assert measure(LabelSetError(), torch.tensor(logits), targets) == MetricValue(
        'label_set_error', np.mean(group[logits.argmax(1)] != labels), 300)


def test_several_labels_and_none():
    metric = LabelSetError('real', labels=lambda sample: {0: (1, 2), 1: (), 2: (0,)}[sample.target])
    assert measure(metric, LOGITS, [0, 1, 2]) == MetricValue('real', .5, 2)
    assert compute_label_set_errors(LOGITS, [(1, 2), (1, 2, 3), (0,)]).tolist() == [False, True, True]
    logits = torch.cat([LOGITS, LOGITS])  # a batch of excluded images changes nothing
    assert measure(metric, logits, [0, 1, 2, 1, 1, 1], size=3) == MetricValue('real', .5, 2)


def test_the_split_into_batches_makes_no_difference():
    logits = torch.randn(100, 20, generator=torch.Generator().manual_seed(0))
    targets = [(i % 20, (i + 1) % 20) for i in range(100)]
    values = [measure(LabelSetError(classes=range(3, 20)), logits, targets, size) for size in (100, 9, 1)]
    assert values[0] == values[1] == values[2]


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match='no image has a value'):
        measure(LabelSetError(labels=lambda sample: ()), LOGITS, [0, 1, 2])
    with pytest.raises(ValueError, match='need logits of 6 classes at least, got 4. Pass a model of the 1000'):
        measure(LabelSetError(), LOGITS, [(0, 5), 1, 1])
    with pytest.raises(ValueError, match='need logits of 1000 classes at least, got 4'):
        measure(LabelSetError(classes=[0, 999]), LOGITS, [0, 1, 1])
