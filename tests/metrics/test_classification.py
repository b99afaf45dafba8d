"""Against numpy's formulae in float64, written from the papers and not from the code."""

import numpy as np
import pytest
import torch

from pit_downstream.utils.protocols import Batch, Outputs, Sample
from pit_downstream.utils.registry import METRICS
from pit_downstream.metrics.classification import (
    CLASSIFICATION, TopError, compute_ece, compute_top_k_errors, make_classification_metrics,
)
from tests.metrics.collect import collect
from tests.metrics.collect import compute as compute_numbers

pytestmark = pytest.mark.numeric


def predictions(count=400, classes=12, seed=0, scale=2.):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, classes)) * scale
    labels = random.integers(0, classes, count)
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(labels)


def make_batch(labels):
    samples = tuple(Sample(str(i), None, label) for i, label in enumerate(labels.tolist()))
    return Batch(images=None, valid=None, samples=samples)


def measure(metrics, logits, labels, parts=None):
    """Return the outcomes of images in batches of the indices `parts`."""
    parts = [torch.arange(len(labels))] if parts is None else parts
    return collect(metrics, [(Outputs(logits[part]), make_batch(labels[part]), part.numpy()) for part in parts],
                   len(labels))


def computed(metrics, logits, labels, parts=None):
    outcomes = measure(metrics, logits, labels, parts)
    return {name: value for metric in metrics for name, value in compute_numbers(metric, outcomes).items()}


def reference(logits, labels):
    logits, labels = logits.numpy().astype(np.float64), labels.numpy()
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    order = np.argsort(-logits, axis=1, kind='stable')
    confidence, predicted = p.max(1), p.argmax(1)
    edges, ece = np.linspace(0, 1, 16), 0.
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = abs((predicted[inside] == labels[inside]).mean() - confidence[inside].mean())
            ece += inside.mean() * gap
    return {'top1_error': (order[:, 0] != labels).mean(),
            'top5_error': (order[:, :5] != labels[:, None]).all(1).mean(),
            'nll': -np.log(p[np.arange(len(labels)), labels]).mean(), 'ece': ece}


@pytest.mark.parametrize('scale', [0.1, 2., 30.])
def test_values_are_the_formulae(scale):
    logits, labels = predictions(scale=scale)
    metrics = make_classification_metrics()
    values = computed(metrics, logits, labels)
    wanted = reference(logits, labels)
    assert list(values) == list(CLASSIFICATION) == list(wanted)
    assert values['top1_error'] == wanted['top1_error'] and values['top5_error'] == wanted['top5_error']
    assert values['nll'] == pytest.approx(wanted['nll'], rel=1e-12)
    assert values['ece'] == pytest.approx(wanted['ece'], abs=1e-12)
    outcomes = measure(metrics, logits, labels)
    assert {value.count for metric in metrics for value in metric.compute(outcomes, None)} == {400}


@pytest.mark.parametrize('name', CLASSIFICATION)
def test_the_split_into_batches_makes_no_difference(name):
    logits, labels = predictions()
    values = []
    for size in (400, 32, 7, 1):
        parts = torch.randperm(400, generator=torch.Generator().manual_seed(size)).split(size)
        values.append(computed([METRICS[name]()], logits, labels, parts)[name])
    assert len(set(values)) == 1


def test_hand_computed():
    logits = torch.tensor([[0., 1., 2.], [5., 5., 5.], [9., 0., 0.]])
    labels = torch.tensor([1, 1, 0])
    assert compute_top_k_errors(logits, labels, 1).tolist() == [True, True, False]  # of equals the first class is taken
    assert compute_top_k_errors(logits, labels, 2).tolist() == [False, False, False]
    assert computed([TopError(1)], logits, labels) == {'top1_error': 2 / 3}
    # two images at confidence 0.75, one of them right: |1/2 - 3/4|
    assert compute_ece(np.array([.75, .75]), np.array([True, False])) == 0.25
    # bin edges belong to the lower bin: 1/15 is in the first of 15, with accuracy 1 and confidence 1/15
    assert compute_ece(np.array([1 / 15]), np.array([True])) == pytest.approx(14 / 15)


def test_half_precision_logits_are_taken():
    logits, labels = predictions()
    metrics = make_classification_metrics()
    wanted = reference(logits.bfloat16().float(), labels)['nll']
    assert computed(metrics, logits.bfloat16(), labels)['nll'] == pytest.approx(wanted, rel=1e-6)


def test_what_is_no_prediction_is_refused():
    metric = METRICS['top1_error']()
    outcomes = measure([metric], *predictions(0))
    with pytest.raises(ValueError, match='no image has a value. Check the data'):
        metric.compute(outcomes, None)
    with pytest.raises(ValueError, match=r'labels must be in 0..11, the classes of the model, got 0..12'):
        measure([METRICS['nll']()], predictions(8)[0], torch.tensor([0, 12] * 4))
