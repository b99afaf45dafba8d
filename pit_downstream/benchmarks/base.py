"""Base class of benchmarks: conditions, metrics, a summary, and the layout of their table."""

import math
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from pit_downstream.results.commands import build_command, get_tool
from pit_downstream.results.condition import Condition
from pit_downstream.results.intervals import Estimate
from pit_downstream.results.labels import label_dataset, label_models
from pit_downstream.results.records import MissingMeasurement, Record, Table, get_weights_label
from pit_downstream.results.results import Gap, format_epsilon
from pit_downstream.results.tables import Sheet, count, mark_best, number, rate, words
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import Spec, format_value

if TYPE_CHECKING:
    from pit_downstream.results.results import Results

RATES = ('_error', '_accuracy')  # suffixes of metrics that are fractions of images
UNBOUNDED = ('nll', 'forwards', 'backwards')  # metrics that are no fractions


@dataclass(frozen=True)
class Layout:
    """Layout of a table: a number of one metric in every cell.

    Attributes:
        rows, columns: Parts of a condition: 'corruption', 'severity', 'attack', 'epsilon', 'condition', or an argument
            of the corruption. Without columns, the table has one number per row.
        value: The metric. Other metrics of the benchmark have a table each, if `every_metric`.
        mean: Add the mean over the columns, and over the rows.
    """

    rows: str
    columns: str = ''
    value: str = 'top1_error'
    mean: bool = True
    every_metric: bool = False


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
        names = [name for name in list_metrics(results.table) if name not in UNBOUNDED]
        shown = names if self.layout.every_metric else [self.layout.value] if self.layout.value in names else names[:1]
        sheets = [make_sheet(self.name, results, self.layout, metric) for metric in shown]
        return [*sheets, *self.tabulate_summary(results)]

    def tabulate_summary(self, results: 'Results') -> list[Sheet]:
        """Return the summary as a table, [] without one or over a gap."""
        try:
            summary = self.summarize(results)
        except MissingMeasurement:
            return []
        rows = tuple((words(name.replace('_', ' ')), rate(estimate)) for name, estimate in summary.items()
                     if '(' not in name)
        caption = f'{self.title or self.name}: summary of {results.label}, in percent with 95 % intervals.'
        return [Sheet(f'{self.name}_summary', caption, ('', 'value'), rows)] if rows else []

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

    def build_command(self, results: 'Results', conditions: Iterable[Condition], *,
                      flags: Mapping[str, Sequence[str]] | None = None) -> str:
        """Return the command that measures `conditions`: that of the run, with `flags`, by default choose_flags()."""
        name, *rest = self.tool.split()
        argv = results.argv if results.argv and get_tool(results.argv[0]) == name else [
            f'pit-downstream {name}', *rest, *shlex.split(format_model_flag(results.model))]
        return build_command(argv, self.choose_flags(conditions) if flags is None else flags)

    @property
    def tool(self) -> str:
        """Name of the tool that runs this benchmark."""
        return f'evaluate --benchmark {self.name}'

    def compare_models(self, several: 'Sequence[Results]') -> Sheet:
        """Return a table with a column per model: means over the columns of the layout, the best in bold."""
        metric = next((metric for metric in (self.layout.value, *list_metrics(several[0].table))
                       if metric in list_metrics(several[0].table)), self.layout.value)
        grids = [make_grid(results.table, self.layout, metric) for results in several]
        rows = []
        for name in dict.fromkeys(row for grid in grids for row, _ in grid):
            cells = [rate(average([record.value for (row, _), record in grid.items() if row == name]))
                     for grid in grids]
            better = not metric.endswith('_error')
            rows.append((words(name.replace('_', ' ')), *mark_best(cells, higher_is_better=better)))
        labels = label_models(results.model for results in several)
        caption = (f'{self.title or self.name}: {metric} in percent on {label_dataset(several[0].table.dataset)}, mean '
                   f'over {self.layout.columns or "the conditions"}. The best number of a row is in bold.')
        columns = (self.layout.rows, *(labels[results.model] for results in several))
        return Sheet(f'{self.name}_models', caption, columns, tuple(rows))


def list_metrics(table: Table) -> list[str]:
    """Return the metrics of a table, in the order of its records."""
    return list(dict.fromkeys(record.metric for record in table.records if not record.layer))


def get_part(condition: Condition, part: str) -> str:
    """Return a part of a condition as text: 'corruption', 'severity', 'attack', 'epsilon', 'norm', 'condition', or an
    argument of the corruption or attack; '' if the condition has none.
    """
    corruption, attack = condition.corruption, condition.attack
    if part == 'condition':
        return str(condition)
    if part == 'corruption':
        return corruption.name if corruption else 'clean'
    if part == 'attack':
        return str(attack.without('norm', 'epsilon')) if attack else 'none'
    if part == 'epsilon':
        return format_epsilon(attack) if attack else ''
    for spec in (corruption, attack):
        value = spec.get(part) if spec else None
        if value is not None:
            return value if isinstance(value, str) else format_value(value)
    return ''


def make_grid(table: Table, layout: Layout, metric: str) -> dict[tuple[str, str], Record]:
    """Return the records of a metric by (row, column) of the layout."""
    grid = {}
    for record in table.records:
        if record.metric == metric and not record.layer and not record.class_name:
            condition = Condition.parse(record.condition)
            grid[get_part(condition, layout.rows), get_part(condition, layout.columns) if layout.columns else metric
                 ] = record
    return grid


def make_sheet(name: str, results: 'Results', layout: Layout, metric: str) -> Sheet:
    """Return a table of one metric in a layout. A cell that was not measured has a dash; no mean is over a gap."""
    chosen = {str(condition) for condition in results.benchmark.conditions()}
    grid = {place: record for place, record in make_grid(results.table, layout, metric).items()
            if record.condition in chosen}
    names = list(dict.fromkeys(row for row, _ in grid))
    columns = sorted({column for _, column in grid if column}, key=_sort_key)
    is_rate = metric not in UNBOUNDED
    make = rate if is_rate else number
    rows = []
    for row in names:
        alone = grid.get((row, ''))  # such as clean: one number in place of a row of them
        values = [grid[row, column].value if (row, column) in grid else None for column in columns]
        mean = alone.value if alone is not None else average(values)
        blank = [words('')] * len(columns) if alone is not None else [make(value) for value in values]
        if layout.columns and layout.mean:
            rows.append((words(row), *blank, make(mean)))
        elif layout.columns:
            rows.append((words(row), *(blank if alone is None else [make(alone.value), *blank[1:]])))
        else:
            record = grid[row, metric]
            value = rate(Estimate.of_rate(record.value, record.count)) if metric.endswith(RATES) else make(record.value)
            rows.append((words(row), value, count(record.count)))
    titles = (metric, *columns, *(['mean'] if layout.mean else [])) if layout.columns else (
        layout.rows, metric, 'images')
    caption = (f'{metric} of {results.subject}'
               f'{", in percent" if is_rate else ""}, by {layout.rows}{layout.columns and f" and {layout.columns}"}.')
    return Sheet(f'{name}_{metric}', caption, tuple(titles), tuple(rows))


def average(values: Sequence[float | None]) -> float | None:
    """Return the mean, None if a value is missing."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


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


def _sort_key(text: str) -> tuple[float, str]:
    """Sort numbers and fractions by size, other texts after them."""
    numerator, _, denominator = text.partition('/')
    try:
        return float(numerator) / float(denominator or 1), text
    except ValueError:
        return math.inf, text


