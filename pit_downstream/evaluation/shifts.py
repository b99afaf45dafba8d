"""Evaluate a classifier on shifted datasets and on clean images of the same classes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from pit_downstream.benchmarks.base import require_counts
from pit_downstream.results.condition import CLEAN
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Metric, Sample
from pit_downstream.results.records import ResultStore, Table
from pit_downstream.datasets.backgrounds import Challenge
from pit_downstream.datasets.base import LabeledSamples
from pit_downstream.datasets.shifts import Shift, is_custom
from pit_downstream.metrics.label_sets import LabelFunction, LabelSetError
from pit_downstream.metrics.classification import make_top1_error
from pit_downstream.evaluation.background_challenge import keep_challenge
from pit_downstream.evaluation.classifier import ClassifierPredictor
from pit_downstream.evaluation.keep import keep_measuring


def measure_shifts(store: ResultStore, predictor: ClassifierPredictor, shifts: Mapping[str, Shift],
                   clean: LabeledSamples | None, *, allow_missing: int = 0, **options: Any) -> dict[str, Table]:
    """Return the table of every dataset by its name, including the clean images.

    The clean table is 'imagenet' for published shifts and 'clean' for custom ones, which may have other classes. One
    pass over the clean images serves all shifts. `options` are those of `keep_measuring`.

    Raises:
        InputError: A published shift is requested for a classifier without ImageNet's 1000 classes, or ReaL without
            ImageNet's images.
    """
    own = [name for name in shifts if is_custom(name)]
    if predictor.classes() != 1000 and len(own) < len(shifts):
        raise InputError(f'expected a classifier of the 1000 classes of ImageNet, got {predictor.classes()} classes of '
                         f'{predictor.name}; give another --model, or images of its classes: --shifts shift_NAME=DIR')
    unmatched = [name for name, shift in shifts.items() if shift.samples is None]
    if unmatched and clean is None:
        raise InputError(f'expected the validation images of ImageNet for {", ".join(unmatched)}, got none; say where '
                         'they lie with --data')
    measured: dict[str, Table] = {}
    if clean is not None:
        metrics = [make_top1_error(), *_build_clean_metrics(shifts.values(), clean)]
        table = _measure(store, predictor, clean, metrics, allow_missing, options)
        measured |= {'imagenet': table} if len(own) < len(shifts) else {}
        measured |= {'clean': table} if own else {}
    for name, shift in shifts.items():
        if isinstance(shift, Challenge):
            table = keep_challenge(store, predictor, shift, **options)
            measured[name] = Table(table.model, table.dataset, [table.record((CLEAN, 'top1_error'))])
        elif shift.samples is not None:
            metric = LabelSetError('top1_error', classes=shift.classes)
            measured[name] = _measure(store, predictor, shift.samples, [metric], allow_missing, options)
    return measured


def _measure(store: ResultStore, predictor: ClassifierPredictor, samples: LabeledSamples, metrics: Sequence[Metric],
             allow_missing: int, options: dict[str, Any]) -> Table:
    """Return only the clean records of `metrics`, as a store may have others of the same images."""
    table = keep_measuring(store, predictor, samples, metrics, [CLEAN], allow_missing=allow_missing, **options)
    records = [table.record((CLEAN, metric.name)) for metric in metrics]
    for metric, record in zip(metrics, records, strict=True):
        images = _count(samples, metric.answers) if isinstance(metric, LabelSetError) else len(samples)
        require_counts(Table(table.model, table.dataset, [record]), images, allow_missing=allow_missing)
    return Table(table.model, table.dataset, records)


def _build_clean_metrics(shifts: Iterable[Shift], clean: LabeledSamples) -> list[LabelSetError]:
    """Return the shifts' metrics on the clean images, without duplicates and without metrics that apply to no image."""
    metrics = {name: LabelSetError(name, answers=answers, classes=shift.classes)
               for shift in shifts for name, answers in shift.clean_labels.items()}
    return [metric for metric in metrics.values() if _count(clean, metric.answers)]


def _count(samples: LabeledSamples, answers: LabelFunction) -> int:
    """Count the samples with an answer, without reading images."""
    unread = torch.empty(0)
    return sum(bool(answers(Sample(id, unread, target)))
               for id, target in zip(samples.ids, samples.targets, strict=True))
