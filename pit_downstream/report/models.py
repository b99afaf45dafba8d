"""Records of one model on one dataset, and short labels of models and datasets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pit_downstream.benchmarks import coco_c
from pit_downstream.results.condition import Condition
from pit_downstream.results.records import Table, get_model_key, get_weights_label
from pit_downstream.results.results import VIEW, get_image_key
from pit_downstream.results.tables import Cell
from pit_downstream.utils.spec import Spec, format_value
from pit_downstream.report.inputs import Key

ERROR = 'top1_error'


@dataclass(frozen=True)
class ModelResults:
    """Table of one model on one set of images.

    Attributes:
        key: Model, dataset and seed.
        label: Short name of the model.
        number: Number of the model, for its color.
        files: Files that have the records.
    """

    key: Key
    table: Table = field(compare=False)
    label: str
    number: int
    files: tuple[Path, ...] = ()

    @property
    def cell(self) -> Cell:
        return Cell(self.label, model=self.number)

    @property
    def model(self) -> str:
        return self.table.model

    @property
    def dataset(self) -> str:
        return self.table.dataset

    @cached_property
    def metrics(self) -> frozenset[str]:
        return frozenset(record.metric for record in self.table.records)

    @cached_property
    def task(self) -> str:
        """'classifier', 'detector', or '' for records of neither."""
        if ERROR in self.metrics or any(name.endswith('_similarity') for name in self.metrics):
            return 'classifier'
        return 'detector' if self.metrics & set(coco_c.METRICS) else ''

    def list_conditions(self, metric: str | None = None) -> list[Condition]:
        """Return the conditions with a record, in the order of the table."""
        names = dict.fromkeys(record.condition for record in self.table.records if metric in (None, record.metric))
        return list(map(Condition.parse, names))


def format_sources(entries: Iterable[ModelResults]) -> str:
    """Return a sentence with the files of some tables."""
    files = list(dict.fromkeys(f'{path.parent.name}/{path.name}' for entry in entries for path in entry.files))
    return f'From {", ".join(files[:4])}{" …" if len(files) > 4 else ""}.'


def make_labels(models: Iterable[str]) -> dict[str, str]:
    """Return a short label by Spec text: the name if it is unique, otherwise with the arguments that differ.

    Random weights are marked.
    """
    models = list(dict.fromkeys(models))
    specs = {model: Spec.parse(get_model_key(model)) for model in models}
    labels = {}
    for model, spec in specs.items():
        rivals = {other for other in specs.values() if other.name == spec.name and other != spec}
        shown = {key: value for key, value in spec.kwargs if any(other.get(key) != value for other in rivals)}
        if 'weights' in shown:
            shown['weights'] = Spec.parse(model).get('weights')  # with its readable part
        label = _format_label(spec, list(shown.items())) if rivals else spec.name
        labels[model] = f'{label}, random weights' if get_weights_label(model) == 'random' else label
    return labels


def _format_label(spec: Spec, kwargs: list[tuple]) -> str:
    """Return the name with these arguments. A weights file is shown by name and part of its digest."""
    words = []
    for key, value in kwargs:
        file, at, digest = str(value).rpartition('@')
        words.append(f'{Path(file).stem}@{digest[:4]}' if at else value if isinstance(value, str)
                     else f'{key}={format_value(value)}')
    return f'{spec.name} ({", ".join(map(str, words))})' if words else f'{spec.name} (plain)'


def format_dataset(dataset: str) -> str:
    """Return a label such as 'cifar10/test, 100 of 2000 images' from a Spec."""
    spec = Spec.parse(dataset)
    name, root, annotations = spec.name, spec.get('root'), spec.get('annotations')
    if isinstance(root, str):
        name = root if spec.name == 'folder' else f'{spec.name} {root}'
    elif isinstance(annotations, str):
        name = f'{spec.name} {Path(annotations.partition("@")[0]).stem}'
    images, limit = spec.get('images'), spec.get('limit')
    plain = f'{limit or images} image{"s" * ((limit or images) != 1)}'
    count = f'{limit} of {images} images' if limit and images else plain
    return f'{name}, {count}' if images or limit else name


def distinguish_views(entry: ModelResults, entries: Sequence[ModelResults]) -> ModelResults:
    """Add view arguments to the label if the same model was measured on the same images with another view."""
    spec = Spec.parse(entry.dataset)
    twins = [Spec.parse(other.dataset) for other in entries if other.label == entry.label and other.key != entry.key
             and get_image_key(other.dataset) == get_image_key(entry.dataset)]
    differing = [f'{key}={spec.get(key)}' for key in VIEW if any(twin.get(key) != spec.get(key) for twin in twins)]
    return replace(entry, label=f'{entry.label}, {", ".join(differing)}') if differing else entry
