"""Records of one model on one dataset, with a label and a color."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pit_downstream.benchmarks import coco_c
from pit_downstream.results.condition import Condition
from pit_downstream.results.records import Table
from pit_downstream.results.results import VIEW, get_image_key
from pit_downstream.results.tables import Cell
from pit_downstream.utils.spec import Spec
from pit_downstream.report.inputs import Key

ERROR = 'top1_error'


@dataclass(frozen=True)
class ModelResults:
    """Table of one model on one set of images.

    Attributes:
        key: Key of the model (get_model_key), dataset and seed.
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


def distinguish_views(entry: ModelResults, entries: Sequence[ModelResults]) -> ModelResults:
    """Add view arguments to the label if the same model was measured on the same images with another view."""
    spec = Spec.parse(entry.dataset)
    twins = [Spec.parse(other.dataset) for other in entries if other.label == entry.label and other.key != entry.key
             and get_image_key(other.dataset) == get_image_key(entry.dataset)]
    differing = [f'{key}={spec.get(key)}' for key in VIEW if any(twin.get(key) != spec.get(key) for twin in twins)]
    return replace(entry, label=f'{entry.label}, {", ".join(differing)}') if differing else entry
