"""Evaluate a classifier on shifted datasets and on clean images of the same classes."""

from collections.abc import Iterable, Mapping
from typing import cast

import torch

from pit_downstream.benchmarks.base import require_counts
from pit_downstream.datasets.backgrounds import Challenge
from pit_downstream.datasets.base import LabeledSamples
from pit_downstream.datasets.shifts import Shift, is_custom
from pit_downstream.evaluation.background_challenge import ChallengeError, ChallengeSamples
from pit_downstream.evaluation.classifier import ClassifierPredictor
from pit_downstream.evaluation.evaluator import AUTO_BATCH, EvaluationOptions, Evaluator, Store
from pit_downstream.metrics.classification import make_top1_error
from pit_downstream.metrics.label_sets import LabelFunction, LabelSetError
from pit_downstream.results.condition import CLEAN
from pit_downstream.results.records import Table
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Metric, Sample


def make_evaluators(predictor: ClassifierPredictor, shifts: Mapping[str, Shift], clean: LabeledSamples | None, *,
                    store: Store, options: EvaluationOptions) -> dict[str, Evaluator]:
    """Return the evaluator of every dataset by its name, including the clean images.

    The clean images are 'imagenet' for published shifts and 'clean' for custom ones, which may have other classes. One
    evaluator of the clean images serves all shifts.

    Raises:
        InputError: A published shift is requested for a classifier without ImageNet's 1000 classes, or ReaL without
            ImageNet's images.
    """
    custom = [name for name in shifts if is_custom(name)]
    if predictor.classes() != 1000 and len(custom) < len(shifts):
        raise InputError(f'shifts of ImageNet need a classifier of its 1000 classes, got {predictor.classes()} classes '
                         f'of {predictor.name}. Pass another --model, or images of its classes: --shifts '
                         'shift_NAME=DIR.')
    relabeled = [name for name, shift in shifts.items() if shift.samples is None]
    if relabeled and clean is None:
        raise InputError(f'{", ".join(relabeled)} needs the validation images of ImageNet, got none. Pass their folder '
                         'with --data DIR.')

    def make(samples: LabeledSamples, *metrics: Metric) -> Evaluator:
        return Evaluator(predictor, samples, metrics, [CLEAN], store=store, options=options, benchmark='shifts')
    evaluators: dict[str, Evaluator] = {}
    if clean is not None:
        evaluator = make(clean, make_top1_error(), *_make_clean_metrics(shifts.values(), clean))
        evaluators |= {'imagenet': evaluator} if len(custom) < len(shifts) else {}
        evaluators |= {'clean': evaluator} if custom else {}
    for name, shift in shifts.items():
        if isinstance(shift, Challenge):
            automatic = AUTO_BATCH.get(torch.device(predictor.device).type, 32)
            size = automatic if options.batch_size == 'auto' else int(options.batch_size)
            evaluators[name] = make(ChallengeSamples(shift, batch_size=size), ChallengeError())
        elif shift.samples is not None:
            evaluators[name] = make(shift.samples, LabelSetError('top1_error', classes=shift.classes))
    return evaluators


def run_evaluators(evaluators: Mapping[str, Evaluator]) -> dict[str, Table]:
    """Evaluate every dataset and return its table: the clean records of its metrics, as a store may have others."""
    tables: dict[str, Table] = {}
    for name, evaluator in evaluators.items():
        table = evaluator.run()
        names = [metric.name for metric in evaluator.metrics]
        tables[name] = Table(table.model, table.dataset, [record for record in table.records if record.metric in names
                                                          and record.condition == str(CLEAN)])
        samples = cast(LabeledSamples, evaluator.samples)
        for metric in evaluator.metrics:
            images = _count(samples, metric.labels) if isinstance(metric, LabelSetError) else len(samples)
            require_counts(Table(table.model, table.dataset, [tables[name].record((CLEAN, metric.name))]), images,
                           allow_missing=evaluator.options.allow_missing)
    return tables


def _make_clean_metrics(shifts: Iterable[Shift], clean: LabeledSamples) -> list[LabelSetError]:
    """Return the shifts' metrics on the clean images, without duplicates and without metrics that apply to no image."""
    metrics = {name: LabelSetError(name, labels=labels, classes=shift.classes)
               for shift in shifts for name, labels in shift.clean_labels.items()}
    return [metric for metric in metrics.values() if _count(clean, metric.labels)]


def _count(samples: LabeledSamples, labels: LabelFunction) -> int:
    """Count the samples with a label, without reading images."""
    unread = torch.empty(0)
    return sum(bool(labels(Sample(id, unread, target)))
               for id, target in zip(samples.ids, samples.targets, strict=True))
