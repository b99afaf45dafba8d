"""Evaluate a classifier on shifted datasets and on clean images of the same classes."""

from collections.abc import Iterable, Mapping, Sequence

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


def evaluate_shifts(predictor: ClassifierPredictor, shifts: Mapping[str, Shift], clean: LabeledSamples | None, *,
                    store: Store, options: EvaluationOptions) -> dict[str, Table]:
    """Return the table of every dataset by its name, including the clean images.

    The clean table is 'imagenet' for published shifts and 'clean' for custom ones, which may have other classes. One
    pass over the clean images serves all shifts.

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
    tables: dict[str, Table] = {}
    if clean is not None:
        metrics = [make_top1_error(), *_make_clean_metrics(shifts.values(), clean)]
        table = _evaluate(predictor, clean, metrics, store, options)
        tables |= {'imagenet': table} if len(custom) < len(shifts) else {}
        tables |= {'clean': table} if custom else {}
    for name, shift in shifts.items():
        if isinstance(shift, Challenge):
            automatic = AUTO_BATCH.get(torch.device(predictor.device).type, 32)
            size = automatic if options.batch_size == 'auto' else int(options.batch_size)
            samples = ChallengeSamples(shift, batch_size=size)
            tables[name] = _evaluate(predictor, samples, [ChallengeError()], store, options)
        elif shift.samples is not None:
            metric = LabelSetError('top1_error', classes=shift.classes)
            tables[name] = _evaluate(predictor, shift.samples, [metric], store, options)
    return tables


def _evaluate(predictor: ClassifierPredictor, samples: LabeledSamples, metrics: Sequence[Metric], store: Store,
              options: EvaluationOptions) -> Table:
    """Return only the clean records of `metrics`, as a store may have others of the same images."""
    table = Evaluator(predictor, samples, metrics, [CLEAN], store=store, options=options, benchmark='shifts').run()
    names = [metric.name for metric in metrics]
    chosen = Table(table.model, table.dataset, [record for record in table.records if record.metric in names
                                                and record.condition == str(CLEAN)])
    for metric in metrics:
        images = _count(samples, metric.labels) if isinstance(metric, LabelSetError) else len(samples)
        require_counts(Table(table.model, table.dataset, [chosen.record((CLEAN, metric.name))]), images,
                       allow_missing=options.allow_missing)
    return chosen


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
