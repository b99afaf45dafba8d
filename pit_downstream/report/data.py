"""All recorded results of a report, grouped by benchmark and by images."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pit_downstream.benchmarks import (
    Adversarial,
    Attention,
    Benchmark,
    CocoC,
    DetectionAttacks,
    ImageNetC,
    Occlusion,
    Shifts,
    imagenet_c,
    shifts,
)
from pit_downstream.benchmarks.adversarial import is_white_box
from pit_downstream.benchmarks.base import get_fields
from pit_downstream.benchmarks.coco_c import MAIN
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.labels import label_dataset, label_model, label_models
from pit_downstream.results.layout import Layout, list_metrics
from pit_downstream.results.records import Table, get_model_key
from pit_downstream.results.results import VIEW, Results, get_image_key
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Spec, format_value
from pit_downstream.report import commands
from pit_downstream.report.inputs import Inputs
from pit_downstream.report.models import ERROR, ModelResults, distinguish_views

if TYPE_CHECKING:
    import numpy as np

ALEXNET = 'AlexNet'
BUILT_IN = ('imagenet_c', 'occlusion', 'coco_c', 'adversarial', 'detection_attacks', 'shifts', 'attention')
SHIFT_PREFIXES = ('imagenet', 'objectnet', 'in9_', shifts.CUSTOM_PREFIX)

Predicate = Callable[[Condition], bool]


@dataclass(frozen=True)
class ImageGroup:
    """Entries measured on the same images. name: of the dataset. suffix: for file names."""

    name: str
    suffix: str
    entries: tuple[ModelResults, ...]


@dataclass(frozen=True)
class Group:
    """Results of several models in one benchmark, on the same images.

    Attributes:
        name, suffix: Of the images, as in ImageGroup.
        benchmark: The benchmark with the recorded conditions of all models.
        entries: One per model. results: Of each.
        sources: All entries with records of the group.
    """

    name: str
    suffix: str
    benchmark: Benchmark
    entries: tuple[ModelResults, ...]
    results: tuple[Results, ...]
    sources: tuple[ModelResults, ...]

    @cached_property
    def metrics(self) -> list[str]:
        """Metrics to draw: that of the layout, AP of boxes and masks, or else the first available metric."""
        layout = self.benchmark.layout
        measured = list(dict.fromkeys(name for results in self.results for name in list_metrics(results.table)))
        main = [name for name in measured if name == layout.value or layout.value in MAIN and name in MAIN]
        return measured if layout.every_metric else main or measured[:1]

    @property
    def pairs(self) -> list[tuple[ModelResults, Results]]:
        return list(zip(self.entries, self.results, strict=True))


@dataclass(frozen=True)
class ReportData:
    """Results of all input files. reference: label of the model to compare with, or AlexNet."""

    inputs: Inputs
    reference: str = ALEXNET

    @cached_property
    def entries(self) -> tuple[ModelResults, ...]:
        """One entry per model, dataset and seed."""
        tables = self.inputs.tables
        labels = label_models(table.model for table in tables.values())
        seeds: dict[str, set[int]] = {}
        for model, _, seed in tables:
            seeds.setdefault(model, set()).add(seed)
        numbers = {model: number for number, model in enumerate(seeds)}
        entries = [ModelResults(
            key, table, labels[table.model] + (f', seed {key[2]}' if len(seeds[key[0]]) > 1 else ''), numbers[key[0]],
            self.inputs.sources[key]) for key, table in tables.items()]
        return tuple(distinguish_views(entry, entries) for entry in entries)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Number of each model by its label."""
        return {entry.label: entry.number for entry in self.entries}

    @cached_property
    def groups(self) -> dict[str, list[Group]]:
        """Groups by name of the benchmark, the custom ones last."""
        found: dict[str, Iterable[Group]] = {
            'imagenet_c': _find_corruptions(self, ImageNetC()),
            'occlusion': _find_conditions(self, _override(Occlusion(), layout=Layout('condition')), is_by_strength),
            'coco_c': _find_corruptions(self, CocoC()),
            'adversarial': _find_conditions(self, Adversarial(), is_white_box),
            'detection_attacks': _find_conditions(self, DetectionAttacks(), lambda one: one.attack is not None),
            'shifts': _find_shifts(self), 'attention': _find_attention(self)}
        found |= {name: _find_custom(self, name) for name in BENCHMARKS if name not in BUILT_IN}
        return {name: list(groups) for name, groups in found.items()}

    def group_by_images(self, is_included: Callable[[ModelResults], bool]) -> Iterator[ImageGroup]:
        """Yield the entries that satisfy `is_included`, grouped by images."""
        groups: dict[str, list[ModelResults]] = {}
        for entry in filter(is_included, self.entries):
            groups.setdefault(get_image_key(entry.dataset), []).append(entry)
        labels = list(map(label_dataset, groups))
        for index, (images, entries) in enumerate(groups.items()):
            label = labels[index]
            if labels.count(label) > 1:  # such as one annotation file for several corruptions
                label = f'{label}, files {Spec.parse(images).get("files")}'
            yield ImageGroup(label, f'_{index + 1}' if len(groups) > 1 else '', tuple(entries))

    def find_model(self, model: str) -> ModelResults | None:
        """Return the first entry of a model named in a condition, None if it was not measured itself."""
        return next((entry for entry in self.entries if entry.key[0] == get_model_key(model)), None)

    def get_label(self, model: str) -> str:
        """Return the label of a model named in a condition."""
        entry = self.find_model(model)
        return entry.label if entry else label_model(model)

    def get_baseline(self, entries: Sequence[ModelResults]) -> ModelResults:
        """Return the model to compare with: the reference if included, else the first."""
        return next((entry for entry in entries if entry.label == self.reference), entries[0])

    def list_models_without(self, name: str) -> list[ModelResults]:
        """Return one entry of every model of the task of a benchmark that has no results in it."""
        measured = {entry.number for group in self.groups[name] for entry in group.entries}
        with_errors = {entry.number for entry in self.entries if entry.task == 'detector' or ERROR in entry.metrics}
        first: dict[int, ModelResults] = {}
        for entry in self.entries:
            has_images = name != 'shifts' or Spec.parse(entry.dataset).name == shifts.IMAGENET
            if entry.task in BENCHMARKS[name].tasks and entry.number in with_errors - measured and has_images:
                first.setdefault(entry.number, entry)
        return list(first.values())

    def choose_argv(self, entry: ModelResults, tool: str) -> list[str]:
        """Return a command of `tool` on a model, see commands.choose_argv."""
        return commands.choose_argv(self.inputs.runs, entry, tool)

    def make_results(self, benchmark: Benchmark, by_name: dict[str, ModelResults]) -> Results:
        """Return the results of a model in a benchmark, with the records of its conditions only."""
        wanted = {str(condition) for condition in (*benchmark.conditions(), *(key[0] for key in benchmark.required()))}
        tables = {name: Table(entry.model, entry.dataset, [
            record for record in entry.table.records if record.condition in wanted])
            for name, entry in by_name.items()}
        readers = {entry.dataset: self.inputs.readers.get(entry.key) for entry in by_name.values()}

        def read_outcomes(dataset: str, condition: Condition, metric: str) -> 'np.ndarray | None':
            reader = readers.get(dataset)
            return reader(condition, metric) if reader else None
        argv = self.choose_argv(next(iter(by_name.values())), benchmark.tool)
        return Results(benchmark, tables, read_outcomes=read_outcomes, argv=argv)

    def make_group(self, images: ImageGroup, benchmark: Benchmark, *, entries: Sequence[ModelResults] | None = None,
                   variant: str = '', suffix: str = '') -> Group:
        """Return the results of entries in a benchmark, those of an image group by default."""
        entries = tuple(images.entries if entries is None else entries)
        return Group(images.name + variant, images.suffix + suffix, benchmark, entries,
                     tuple(self.make_results(benchmark, {'data': entry}) for entry in entries), entries)


def is_by_strength(condition: Condition) -> bool:
    """Return whether the condition is a corruption with another strength than a severity, without an attack."""
    return condition.attack is None and condition.corruption is not None and not imagenet_c.is_corrupted(condition)


def restrict(benchmark: Benchmark, conditions: Iterable[Condition]) -> Benchmark:
    """Return a benchmark whose conditions are exactly the given ones."""
    chosen = tuple(dict.fromkeys(conditions))
    return _override(benchmark, conditions=lambda self: chosen)


def _override(benchmark: Benchmark, **attributes: Any) -> Benchmark:
    cls = type(benchmark)
    return type(cls.__name__, (cls,), {**attributes, '__doc__': cls.__doc__})(**vars(benchmark))


def _has_conditions(entry: ModelResults, benchmark: Benchmark, is_included: Predicate) -> bool:
    """Return whether an entry has such conditions that were not measured for a custom benchmark alone."""
    return entry.task in benchmark.tasks and any(
        is_included(Condition.parse(record.condition)) for record in entry.table.records
        if (record.benchmark in BUILT_IN or record.benchmark not in BENCHMARKS)
        and (entry.task == 'detector' or record.metric == ERROR))


def _find_corruptions(data: ReportData, benchmark: ImageNetC | CocoC) -> Iterator[Group]:
    """Yield a group per set of images and variant of the corruptions, such as {'jpeg': 85}."""
    for images in data.group_by_images(lambda entry: _has_conditions(entry, benchmark, imagenet_c.is_corrupted)):
        specs = {entry: [one.corruption for one in entry.list_conditions() if one.corruption
                         and imagenet_c.is_corrupted(one)] for entry in images.entries}
        variants = {entry: imagenet_c.list_variants(several) for entry, several in specs.items()}
        every = dict.fromkeys(variant for several in variants.values() for variant in several)
        for index, variant in enumerate(every, 1):
            entries = [entry for entry in images.entries if variant in variants[entry]]
            arguments = dict(variant)
            chosen = [(spec.name, severity) for entry in entries for spec in specs[entry]
                      for severity in imagenet_c.SEVERITIES
                      if Condition(spec) == imagenet_c.make_condition(spec.name, severity, **arguments)]
            names = sorted({name for name, _ in chosen})
            published = [name for name in (*imagenet_c.CORRUPTIONS, *imagenet_c.HOLD_OUT) if name in names]
            text = ', '.join(f'{key}={format_value(value)}' for key, value in variant)
            yield data.make_group(images, _override(replace(
                benchmark, corruptions=tuple(dict.fromkeys([*published, *names])),
                severities=tuple(sorted({severity for _, severity in chosen}))), arguments=arguments),
                entries=entries, variant=f' ({text})' if text else '',
                suffix=f'_variant{index}' if len(every) > 1 else '')


def _find_conditions(data: ReportData, benchmark: Benchmark, is_included: Predicate) -> Iterator[Group]:
    """Yield a group per set of images, with the conditions that satisfy `is_included` and the same without attack."""
    for images in data.group_by_images(lambda entry: _has_conditions(entry, benchmark, is_included)):
        chosen: dict[ModelResults, list[Condition]] = {}
        for entry in images.entries:
            measured = entry.list_conditions(ERROR if entry.task == 'classifier' else None)
            included = [condition for condition in measured if is_included(condition)]
            bases = [Condition(one.corruption) if one.attack else CLEAN for one in included]
            chosen[entry] = [*(base for base in dict.fromkeys(bases) if base in measured), *included]
        group = data.make_group(images, restrict(benchmark, (one for several in chosen.values() for one in several)))
        yield replace(group, results=tuple(data.make_results(restrict(benchmark, conditions), {'data': entry})
                                           for entry, conditions in chosen.items()))


def _find_attention(data: ReportData) -> Iterator[Group]:
    """Yield a group per set of images and threshold of similar blocks."""
    for images in data.group_by_images(lambda entry: any(name.endswith('_similarity') for name in entry.metrics)):
        thresholds = {entry: sorted(name.partition('=')[2].rstrip(')') for name in entry.metrics
                                    if name.startswith('softmax_similar_blocks(')) for entry in images.entries}
        every = dict.fromkeys(text for several in thresholds.values() for text in several) or ['0.9']
        conditions = [Condition.parse(record.condition) for entry in images.entries
                      for record in entry.table.records if '_similar' in record.metric]
        for index, text in enumerate(every, 1):
            entries = [entry for entry in images.entries if len(every) == 1 or text in thresholds[entry]]
            yield data.make_group(images, restrict(Attention(threshold=float(text)), conditions), entries=entries,
                                  suffix=f'_threshold{index}' if index > 1 else '')


def _find_shifts(data: ReportData) -> Iterator[Group]:
    """Yield one group with the shifted datasets of every model and limit.

    Of several datasets with one name, the largest table counts. Custom datasets are separate for each set of clean
    images that they are compared with.
    """
    found: dict[tuple, dict[str, ModelResults]] = {}
    for entry in data.entries:
        spec = Spec.parse(entry.dataset)
        if spec.name.startswith(SHIFT_PREFIXES) and (CLEAN, ERROR) in entry.table and spec.name != 'imagenet_c':
            key = entry.key[0], spec.get('limit'), entry.key[2], spec.get('clean')
            by_name = found.setdefault(key, _find_custom_clean(data, entry))
            if spec.name not in by_name or len(entry.table) > len(by_name[spec.name].table):
                by_name[spec.name] = entry
    models = [by_name for by_name in found.values() if shifts.list_measured_shifts(
        {name: entry.table for name, entry in by_name.items()})]
    if models:
        sources = dict.fromkeys(entry for by_name in models for entry in by_name.values())
        yield Group('', '', Shifts(), tuple(next(iter(by_name.values())) for by_name in models),
                    tuple(data.make_results(Shifts(), by_name) for by_name in models), tuple(sources))


def _find_custom_clean(data: ReportData, custom: ModelResults) -> dict[str, ModelResults]:
    """Return the clean entry for a custom dataset, matched by the digest of its files and by its view, if measured."""
    def make_key(entry: ModelResults, files: str) -> tuple:
        spec = Spec.parse(entry.dataset)
        return entry.key[0], entry.key[2], spec.get(files), *map(spec.get, VIEW)
    if Spec.parse(custom.dataset).get('clean') is None:
        return {}
    return next(({shifts.CUSTOM_CLEAN: entry} for entry in data.entries
                 if make_key(entry, 'files') == make_key(custom, 'clean') and (CLEAN, ERROR) in entry.table), {})


def _find_custom(data: ReportData, name: str) -> Iterator[Group]:
    """Yield a group per set of images with records of a custom benchmark, whose arguments are those of the last run."""
    def list_recorded(entry: ModelResults) -> list[Condition]:
        return [Condition.parse(record.condition) for record in entry.table.records if record.benchmark == name]
    runs: dict[tuple[str, str], Spec] = {}
    for run in sorted(data.inputs.runs, key=lambda run: run.started):
        if run.benchmark and Spec.parse(run.benchmark).name == name:
            runs[get_model_key(run.model), run.dataset] = Spec.parse(run.benchmark)
    for images in data.group_by_images(
            lambda entry: bool(list_recorded(entry)) or entry.key[:2] in runs):
        conditions: list[Condition] = []
        known = {field.name for field in get_fields(BENCHMARKS[name])}
        for entry in images.entries:
            spec = runs.get(entry.key[:2], Spec(name))
            benchmark = BENCHMARKS[name](**{key: value for key, value in spec.kwargs if key in known})
            conditions += [*benchmark.conditions(), *list_recorded(entry)]
        yield data.make_group(images, restrict(benchmark, conditions))
