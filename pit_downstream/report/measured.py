"""Recorded results for the report sections: grouped by images, with a label per model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

from pit_downstream.benchmarks import coco_c
from pit_downstream.benchmarks.imagenet_c import ERROR
from pit_downstream.results.condition import Condition
from pit_downstream.results.records import Table, get_model_key
from pit_downstream.utils.spec import Spec
from pit_downstream.report.inputs import Kept, Key
from pit_downstream.report.names import VIEW, dataset_label, model_labels, get_image_key
from pit_downstream.report.parts import Cell

ALEXNET = 'AlexNet'


@dataclass(frozen=True)
class ModelResults:
    """Table of one model on one set of images. number: of the model, for its color. label: its short name."""

    key: Key
    table: Table
    label: str
    number: int
    files: tuple[Path, ...]

    @property
    def cell(self) -> Cell:
        return Cell(self.label, model=self.number)

    @property
    def model(self) -> str:
        return self.table.model

    def holds(self, wanted: Callable[[Condition], bool], metric: str | None = None) -> bool:
        """Return whether there is a record of such a condition, and of this metric."""
        return any(wanted(condition) for condition in self.conditions(metric))

    def conditions(self, metric: str | None = None) -> list[Condition]:
        """Return the conditions in the order of the table."""
        return list(dict.fromkeys(_parsed(record.condition) for record in self.table.records
                                  if metric in (None, record.metric)))

    @cached_property
    def metrics(self) -> frozenset[str]:
        return frozenset(record.metric for record in self.table.records)

    @property
    def classifies(self) -> bool:
        return ERROR in self.metrics

    @property
    def detects(self) -> bool:
        return bool(self.metrics & set(coco_c.METRICS))


@dataclass(frozen=True)
class Group:
    """Tables measured on the same images. name: of the dataset. short: file name suffix."""

    name: str
    short: str
    ones: tuple[ModelResults, ...]


@dataclass(frozen=True)
class Measured:
    """Results of all input files. kept: file contents. reference: label of the model to compare with, or AlexNet."""

    kept: Kept
    reference: str = ALEXNET

    @cached_property
    def ones(self) -> tuple[ModelResults, ...]:
        """Return one entry per model, dataset and seed."""
        labels = model_labels(model for model, _, _ in self.kept.tables)
        order = list(dict.fromkeys(get_model_key(model) for model, _, _ in self.kept.tables))
        seeds = {get_model_key(model): {key[2] for key in self.kept.tables
                                        if get_model_key(key[0]) == get_model_key(model)}
                 for model, _, _ in self.kept.tables}
        found = []
        for key, table in self.kept.tables.items():
            model, _, seed = key
            said = f', seed {seed}' if len(seeds[get_model_key(model)]) > 1 else ''
            found.append(ModelResults(key, table, labels[model] + said, order.index(get_model_key(model)),
                                      self.kept.sources[key]))
        return tuple(_disambiguate(one, found) for one in found)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Return the number of each model by its label."""
        return {one.label: one.number for one in self.ones}

    def groups(self, wanted: Callable[[ModelResults], bool]) -> Iterator[Group]:
        """Yield the tables that satisfy `wanted`, grouped by images."""
        found: dict[str, list[ModelResults]] = {}
        for one in self.ones:
            if wanted(one):
                found.setdefault(get_image_key(one.table.dataset), []).append(one)
        labels = [dataset_label(pictures) for pictures in found]
        for index, (pictures, ones) in enumerate(found.items(), 1):
            label = labels[index - 1]
            if labels.count(label) > 1:  # e.g. one annotation file for several corruptions
                label = f'{label}, files {Spec.parse(pictures).get("files")}'
            yield Group(label, f'_{index}' if len(found) > 1 else '', tuple(ones))

    def label_of(self, model: str) -> str:
        """Return the label of a model named in a condition, or its name if it was not measured itself."""
        wanted = get_model_key(model)
        return next((one.label for one in self.ones if get_model_key(one.model) == wanted),
                    model_labels([model])[model])

    def baseline(self, ones: Sequence[ModelResults]) -> ModelResults:
        """Return the model to compare with: the reference if included, else the first."""
        return next((one for one in ones if one.label == self.reference), ones[0])


@cache
def _parsed(text: str) -> Condition:
    return Condition.parse(text)


def sources(ones: Sequence[ModelResults]) -> str:
    """Return a caption that names the files of some tables."""
    files = list(dict.fromkeys(f'{path.parent.name}/{path.name}' for one in ones for path in one.files))
    return f'From {", ".join(files[:4])}{" …" if len(files) > 4 else ""}.'


def _disambiguate(one: ModelResults, every: Sequence[ModelResults]) -> ModelResults:
    """Add view arguments to the label if the same model was measured on the same images with another view."""
    spec = Spec.parse(one.table.dataset)
    twins = [other for other in every if other.label == one.label and other.key != one.key
             and get_image_key(other.table.dataset) == str(spec.without(*VIEW))]
    said = [f'{key}={spec.get(key)}' for key in VIEW if any(
        Spec.parse(twin.table.dataset).get(key) != spec.get(key) for twin in twins)]
    return replace(one, label=f'{one.label}, {", ".join(said)}') if said else one
