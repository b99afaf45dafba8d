"""Against numpy's formulae in float64, written from the papers and not from the code."""

import numpy as np
import pytest
import torch
import torch.distributed as dist

from pit_downstream.utils.protocols import Batch, Outputs, Sample
from pit_downstream.utils.registry import METRICS
from pit_downstream.metrics.classification import (
    CLASSIFICATION, TopError, count_calibration_bins, make_classification_metrics, compute_ece, compute_top_k_errors,
)

pytestmark = pytest.mark.numeric


def predictions(count=400, classes=12, seed=0, scale=2.):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, classes)) * scale
    labels = random.integers(0, classes, count)
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(labels)


def update(metrics, logits, labels):
    samples = tuple(Sample(str(i), None, label) for i, label in enumerate(labels.tolist()))
    batch = Batch(images=None, valid=None, samples=samples)
    for metric in metrics:
        metric.update(Outputs(logits), batch)


def computed(metrics):
    return {name: value for metric in metrics for name, value in metric.compute().items()}


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
    update(metrics, logits, labels)
    values = computed(metrics)
    wanted = reference(logits, labels)
    assert list(values) == list(CLASSIFICATION) == list(wanted)
    assert values['top1_error'] == wanted['top1_error'] and values['top5_error'] == wanted['top5_error']
    assert values['nll'] == pytest.approx(wanted['nll'], rel=1e-6)
    assert values['ece'] == pytest.approx(wanted['ece'], abs=1e-6)
    assert [metric.count for metric in metrics] == [400] * 4


@pytest.mark.parametrize('name', CLASSIFICATION)
def test_the_split_into_batches_makes_no_difference(name):
    logits, labels = predictions()
    values = []
    for size in (400, 32, 7, 1):
        metric = METRICS[name]()
        for part in torch.randperm(400, generator=torch.Generator().manual_seed(size)).split(size):
            update([metric], logits[part], labels[part])
        values.append(metric.compute()[name])
    assert len(set(values)) == 1


def test_hand_computed():
    logits = torch.tensor([[0., 1., 2.], [5., 5., 5.], [9., 0., 0.]])
    labels = torch.tensor([1, 1, 0])
    assert compute_top_k_errors(logits, labels, 1).tolist() == [True, True, False]  # of equals the first class is taken
    assert compute_top_k_errors(logits, labels, 2).tolist() == [False, False, False]
    metric = TopError(1)
    update([metric], logits, labels)
    assert metric.compute() == {'top1_error': 2 / 3}
    # two images at confidence 0.75, one of them right: |1/2 - 3/4|
    sure = torch.tensor([[.75, .25], [.75, .25]]).log()
    counts = count_calibration_bins(sure, torch.tensor([0, 1]))
    assert compute_ece(counts) == pytest.approx(0.25, abs=1e-7)


def test_reset_forgets():
    logits, labels = predictions()
    metric = METRICS['nll']()
    update([metric], logits, labels)
    metric.reset()
    update([metric], logits[:10], labels[:10])
    assert metric.compute()['nll'] == pytest.approx(reference(logits[:10], labels[:10])['nll'], rel=1e-6)
    assert metric.count == 10


def test_half_precision_logits_are_taken():
    logits, labels = predictions()
    metrics = make_classification_metrics()
    update(metrics, logits.bfloat16(), labels)
    assert computed(metrics)['nll'] == pytest.approx(reference(logits.bfloat16().float(), labels)['nll'], rel=1e-6)


def test_what_is_no_prediction_is_refused():
    with pytest.raises(ValueError, match='expected at least one image, got none'):
        METRICS['top1_error']().compute()
    logits, labels = predictions(8)
    logits[3, 2], logits[5, 1] = float('nan'), float('inf')
    for metric in make_classification_metrics():
        update([metric], logits, labels)
        with pytest.raises(ValueError, match='got NaN or infinity for 2 of 8 images'):
            metric.compute()
    with pytest.raises(ValueError, match=r'expected labels in 0..11, the classes of the model, got labels in 0..12'):
        update([METRICS['nll']()], *[predictions(8)[0], torch.tensor([0, 12] * 4)])


def _one_rank(rank, folder, split):
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    logits, labels = predictions()
    metrics = make_classification_metrics()
    part = slice(None, split) if rank == 0 else slice(split, None)
    if len(labels[part]):
        update(metrics, logits[part], labels[part])
    torch.save((computed(metrics), [metric.count for metric in metrics]), f'{folder}/{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.parametrize('split', [150, 400])  # the second leaves rank 1 without an image
def test_two_ranks_give_what_one_gives(tmp_path, split):
    torch.multiprocessing.start_processes(_one_rank, (str(tmp_path), split), nprocs=2, start_method='fork')
    metrics = make_classification_metrics()
    update(metrics, *predictions())
    alone = computed(metrics), [400] * 4
    assert [torch.load(tmp_path / f'{rank}.pth') for rank in range(2)] == [alone, alone]
