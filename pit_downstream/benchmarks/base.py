"""Base class of benchmarks: conditions, metrics, a summary, and the layout of their table."""

import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

from pit_downstream.results.commands import build_command, get_tool
from pit_downstream.results.condition import Condition
from pit_downstream.results.intervals import Estimate
from pit_downstream.results.labels import label_dataset, label_models
from pit_downstream.results.layout import (
    Layout,
    average_row,
    choose_metric,
    get_part,
    is_fraction,
    is_lower_better,
    list_metrics,
    list_places,
    make_cell,
    make_grid,
    make_sheet,
)
from pit_downstream.results.records import MissingMeasurement, Table, get_weights_label
from pit_downstream.results.results import Gap
from pit_downstream.results.tables import Sheet, mark_best, words
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import Spec

if TYPE_CHECKING:
    from pit_downstream.results.results import Results

class Benchmark(ABC):
    """Base class of benchmarks. A subclass is a frozen dataclass whose fields are flags of `pit-downstream evaluate`.

    A subclass defines `name`, `layout`, `conditions` and `metric_names`, and where it has a summary `summarize`.
    Tables, commands for missing measurements, export and the section of the report follow from these.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ''
    about: ClassVar[str] = ''  # one or two sentences on how to read the numbers, for the report
    tasks: ClassVar[tuple[str, ...]] = ('classifier',)
    layout: ClassVar[Layout]

    @abstractmethod
    def conditions(self) -> tuple[Condition, ...]:
        """Return the conditions to measure."""

    def metric_names(self, task: str) -> tuple[str, ...]:
        """Return the metrics to measure. task: 'classifier' or 'detector'. A detector's come from its dataset."""
        return ('top1_error',) if task == 'classifier' else ()

    def summarize(self, results: 'Results') -> dict[str, Estimate]:
        """Return the summary by name. Raises MissingMeasurement if a number that it needs is missing."""
        return {}

    def tabulate(self, results: 'Results') -> list[Sheet]:
        """Return the tables of the benchmark, in its layout."""
        shown = list_metrics(results.table) if self.layout.every_metric else [choose_metric(results, self.layout)]
        sheets = [make_sheet(self.name, results, self.layout, metric) for metric in shown]
        return [*(sheet for sheet in sheets if sheet.rows), *self.tabulate_summary(results)]

    def tabulate_summary(self, results: 'Results') -> list[Sheet]:
        """Return the summary as a table, [] without one or over a gap."""
        rows = tuple((words(name.replace('_', ' ')), make_cell(name, estimate))
                     for name, estimate in self.select_headline(results).items())
        caption = f'{self.title or self.name}: summary of {results.label}, in percent with 95 % intervals.'
        return [Sheet(f'{self.name}_summary', caption, ('', 'value'), rows)] if rows else []

    def select_headline(self, results: 'Results') -> dict[str, Estimate]:
        """Return the numbers of the summary that compare models: by default names without arguments, {} over a gap."""
        try:
            return {name: estimate for name, estimate in self.summarize(results).items() if '(' not in name}
        except MissingMeasurement:
            return {}

    def required(self) -> tuple[tuple[Condition, str], ...]:
        """Return the (condition, metric) pairs that a complete result has, by default the layout's metric."""
        return tuple((condition, self.layout.value) for condition in self.conditions())

    def find_gaps(self, results: 'Results') -> list[Gap]:
        """Return the missing measurements, with the command that measures them."""
        metrics = list_metrics(results.table)
        keys = [(condition, metric if metric in metrics or not metrics else metrics[0])
                for condition, metric in self.required()]
        absent = [key for key in keys if key not in results.table]
        if not absent:
            return []
        return [Gap(f'{describe_missing([key[0] for key in absent])} not measured',
                    self.build_command(results, [key[0] for key in absent]))]

    def choose_flags(self, conditions: Iterable[Condition]) -> Mapping[str, Sequence[str]]:
        """Return the flags that select `conditions`, by flag. By default none: the same command measures the rest."""
        return {}

    @property
    def text(self) -> str:
        """Name with the arguments that differ from their defaults, such as 'imagenet_c(severities=(1, 3))'."""
        return str(Spec.of(self.name, **{field.name: value for field in get_fields(type(self))
                                         if (value := getattr(self, field.name)) != field.default}))

    def list_flags(self) -> dict[str, list[str]]:
        """Return the flags of the fields that differ from their defaults."""
        flags: dict[str, list[str]] = {}
        for field in get_fields(type(self)):
            value = getattr(self, field.name)
            if value != field.default and value is not None:
                values = [] if isinstance(value, bool) else value if isinstance(value, tuple) else [value]
                flags[f'--{"no-" * (value is False)}{field.name.replace("_", "-")}'] = list(map(str, values))
        return flags

    def build_command(self, results: 'Results', conditions: Iterable[Condition], *,
                      flags: Mapping[str, Sequence[str]] | None = None) -> str:
        """Return the command that measures `conditions`: that of the run, with `flags`, by default choose_flags().

        Without the command of a run, the fields of the benchmark become flags.
        """
        name, *rest = self.tool.split()
        chosen = self.choose_flags(conditions) if flags is None else flags
        if results.argv and get_tool(results.argv[0]) in (name, 'evaluate'):
            return build_command(results.argv, chosen)
        if get_weights_label(results.model) == 'custom':  # a module of the caller has no command
            return ''
        argv = [f'pit-downstream {name}', *rest, *shlex.split(format_model_flag(results.model))]
        return build_command(argv, {**self.list_flags(), **chosen})

    @property
    def tool(self) -> str:
        """Name of the tool that runs this benchmark."""
        return f'evaluate --benchmark {self.name}'

    def compare_models(self, several: 'Sequence[Results]') -> Sheet:
        """Return a table with a column per model, the best number of a row in bold.

        Rows have the means over the columns of the layout (without `mean`, the numbers of every column), then the
        headline of the summary. A mean over other columns than those of the other models is missing.
        """
        metric = choose_metric(several[0], self.layout)
        rows = []
        for name, values in self._compare_rows(several, metric).items():
            rows.append((words(name.replace('_', ' ')), *mark_best(
                [make_cell(metric, value) for value in values], higher_is_better=not is_lower_better(metric))))
        headlines = [self.select_headline(results) for results in several]
        for name in dict.fromkeys(name for headline in headlines for name in headline):
            cells = [make_cell(name, headline[name].value if name in headline else None) for headline in headlines]
            rows.append((words(name.replace('_', ' ')), *mark_best(
                cells, higher_is_better=not is_lower_better(name))))
        labels = label_models(results.model for results in several)
        mean = f', mean over the columns {self.layout.columns}' if self.layout.columns and self.layout.mean else ''
        caption = (f'{self.title or self.name}: {metric}{" in percent" if is_fraction(metric) else ""} on '
                   f'{label_dataset(several[0].table.dataset)}{mean}. The best number of a row is in bold.')
        columns = (self.layout.rows, *(labels[results.model] for results in several))
        return Sheet(f'{self.name}_models', caption, columns, tuple(rows))

    def _compare_rows(self, several: 'Sequence[Results]', metric: str) -> dict[str, list[float | None]]:
        """Return the numbers of the layout by row and model, None for a gap. Models differ in their layers."""
        if 'layer' in (self.layout.rows, self.layout.columns):
            return {}
        grids = [make_grid(results, self.layout, metric) for results in several]
        places = dict.fromkeys(place for results in several for place in list_places(results, self.layout, metric))
        if self.layout.columns and not self.layout.mean:
            return {', '.join(filter(None, place)): [grid[place].value if place in grid else None for grid in grids]
                    for place in places if any(place in grid for grid in grids)}
        measured = {row for grid in grids for row, _ in grid}
        return {row: [average_row(grid, places, row) for grid in grids]
                for row in dict.fromkeys(row for row, _ in places) if row in measured}


def describe_missing(conditions: Sequence[Condition], limit: int = 4) -> str:
    """Return a short text such as '70 conditions (shot_noise, impulse_noise, defocus_blur and 11 more)'."""
    names = list(dict.fromkeys(get_part(condition, 'attack' if condition.attack else 'corruption')
                               for condition in conditions))
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return f'{len(conditions)} condition{"s" * (len(conditions) != 1)} ({", ".join(names[:limit])}{more})'


def require_counts(table: Table, images: int, *, allow_missing: int = 0) -> None:
    """Raise InputError for a record of fewer than images - allow_missing images."""
    for record in table.records:
        if record.count < images - allow_missing:
            raise InputError(f'{record.metric} of {table.model} under {record.condition} is of {record.count} of '
                             f'{images} images: {images - record.count} could not be read when it was measured. Fix '
                             'them and remove these records, or accept the gap with --allow-missing '
                             f'{images - record.count}.')


def format_model_flag(model: str) -> str:
    """Return --model as a shell argument from a recorded model name, whose weights are named without their folder."""
    kwargs = ('weights', 'amp', 'search', 'mean', 'std')  # added by build_classifier
    spec, label = Spec.parse(model).without(*kwargs), get_weights_label(model)
    foreign = label.startswith(('local-dir:', 'hf-hub:', 'hf_hub:'))  # the weights name the model
    return f'--model {shlex.quote(label if foreign else str(spec))}'


def get_fields(benchmark: type[Benchmark]) -> tuple[Any, ...]:
    """Return the dataclass fields of a benchmark, each of which is a flag."""
    return fields(benchmark)  # type: ignore[arg-type]
