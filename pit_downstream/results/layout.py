"""Layout of a table of results: which part of a condition is a row and which is a column, and the cells."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pit_downstream.results.condition import Condition
from pit_downstream.results.intervals import Estimate
from pit_downstream.results.records import Record, Table
from pit_downstream.results.results import format_epsilon
from pit_downstream.results.tables import Cell, Sheet, count, number, points, rate, words
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import format_value

if TYPE_CHECKING:
    from pit_downstream.results.results import Results

RATES = ('_error', '_accuracy')  # suffixes of metrics that are fractions of images
# Suffixes of metrics that are no fractions, and of numbers of which the lowest is the best
UNBOUNDED = ('nll', 'forwards', 'backwards', '_rank', '_entropy', '_distance', '_blocks')
LOWER_IS_BETTER = ('_error', 'nll', 'ece', 'CE', 'gap', '_similarity', '_blocks', '_ratio')


@dataclass(frozen=True)
class Layout:
    """Layout of a table: a number of one metric in every cell.

    Attributes:
        rows, columns: Parts of a condition: 'corruption', 'severity', 'attack', 'epsilon', 'condition', or an argument
            of the corruption or attack; 'dataset' for the short name of the dataset, 'layer' for that of the record.
            Without columns, the table has one number per row.
        value: The metric. Other metrics of the benchmark have a table each, if `every_metric`.
        mean: Add the mean over the columns.
        mean_row: Add the mean over the rows with several numbers.
    """

    rows: str
    columns: str = ''
    value: str = 'top1_error'
    mean: bool = True
    mean_row: bool = False
    every_metric: bool = False


def list_metrics(table: Table) -> list[str]:
    """Return the metrics of a table, in the order of its records."""
    return list(dict.fromkeys(record.metric for record in table.records if not record.layer))


def choose_metric(results: 'Results', layout: Layout) -> str:
    """Return the metric of a layout if it was measured, otherwise the first measured metric."""
    measured = list(dict.fromkeys(record.metric for record in results.records))
    names = list_metrics(results.table)
    return layout.value if layout.value in measured or not names else names[0]


def is_fraction(name: str) -> bool:
    """Return whether a metric is a fraction, shown in percent."""
    return not name.partition('(')[0].endswith(UNBOUNDED)


def is_lower_better(name: str) -> bool:
    """Return whether the lowest value of a number is the best."""
    return name.partition('(')[0].endswith(LOWER_IS_BETTER)


def make_cell(name: str, value: 'float | Estimate | None') -> Cell:
    """Return the cell of a number: in percent if it is a fraction, with the sign of a gap."""
    if is_fraction(name):
        return points(value) if name.endswith('gap') else rate(value)
    return number(value.value if isinstance(value, Estimate) else value)


def get_part(condition: Condition, part: str) -> str:
    """Return a part of a condition as text: 'corruption', 'severity', 'attack', 'epsilon', 'norm', 'condition', or an
    argument of the corruption or attack; '' if the condition has none.

    The attack is without its epsilon, with a corruption before it and with a norm other than Linf after it.
    """
    corruption, attack = condition.corruption, condition.attack
    if part == 'condition':
        return str(condition)
    if part == 'corruption':
        return corruption.name if corruption else 'clean'
    if part == 'attack':
        return describe_attack(condition)
    if part == 'epsilon':
        return format_epsilon(attack) if attack else ''
    for spec in (corruption, attack):
        value = spec.get(part) if spec else None
        if value is not None:
            return value if isinstance(value, str) else format_value(value)
    return ''


def describe_attack(condition: Condition) -> str:
    """Return a text such as 'fog(severity=3) + pgd(steps=20), L2', 'clean' without corruption and attack."""
    if condition.attack is None:
        return str(condition)
    norm, rest = condition.attack.get('norm', 'Linf'), Condition(None, condition.attack.without('norm', 'epsilon'))
    text = str(rest if condition.corruption is None else Condition(condition.corruption, rest.attack))
    return f'{text.removeprefix("clean + ")}{"" if norm == "Linf" else f", {norm}"}'


def make_grid(results: 'Results', layout: Layout, metric: str) -> dict[tuple[str, str], Record]:
    """Return the records of a metric under the conditions of the benchmark, by (row, column) of the layout.

    Raises:
        InputError: Two records have one row and column.
    """
    chosen = {str(condition) for condition in results.benchmark.conditions()}
    grid: dict[tuple[str, str], Record] = {}
    for name, table in results.tables.items():
        for record in table.records:
            parts = {'dataset': name, 'layer': record.layer}
            if (record.metric != metric or record.condition not in chosen or record.class_name
                    or bool(record.layer) != ('layer' in (layout.rows, layout.columns))):
                continue
            condition = Condition.parse(record.condition)
            row, column = (parts[part] if part in parts else get_part(condition, part) if part else metric
                           for part in (layout.rows, layout.columns))
            if (other := grid.setdefault((row, column), record)) is not record:
                raise InputError(f'the layout of {results.benchmark.name} has two numbers of {metric} in row {row!r} '
                                 f'and column {column!r}: {other.condition} on {other.dataset} and {record.condition} '
                                 f'on {record.dataset}. Change its rows or columns.')
    return grid


def list_places(results: 'Results', layout: Layout, metric: str) -> list[tuple[str, str]]:
    """Return the (row, column) of every condition of the benchmark and of every measured number, in this order.

    Datasets and layers are known only from the records.
    """
    places = list(make_grid(results, layout, metric))
    if not {'dataset', 'layer'} & {layout.rows, layout.columns}:
        places = [(get_part(condition, layout.rows), get_part(condition, layout.columns) if layout.columns else metric)
                  for condition in results.benchmark.conditions()] + places
    return list(dict.fromkeys(places))


def list_columns(places: Iterable[tuple[str, str]]) -> list[str]:
    """Return the columns of a grid, numbers by size, then others in their order. '' is the column of a row alone."""
    return sorted(dict.fromkeys(column for _, column in places if column), key=_parse_number)


def average_row(grid: Mapping[tuple[str, str], Record], places: Iterable[tuple[str, str]], row: str) -> float | None:
    """Return the mean of the numbers of a row, None if one of its places has none."""
    return average([grid[place].value if place in grid else None for place in places if place[0] == row])


def make_sheet(name: str, results: 'Results', layout: Layout, metric: str) -> Sheet:
    """Return a table of one metric in a layout.

    A row or column without any number is omitted. A cell that was not measured has a dash. A mean over conditions of
    which one was not measured, also an omitted one, is a dash.
    """
    grid, places = make_grid(results, layout, metric), list_places(results, layout, metric)
    columns, measured = list_columns(grid), {row for row, _ in grid}
    has_mean, rows = bool(layout.columns) and layout.mean, []
    has_clean = bool(layout.columns) and not has_mean and any(not column for _, column in grid)
    first = [words('')] if has_clean else []  # of a row of several numbers, in the column of single ones
    for row in dict.fromkeys(row for row, _ in places if row in measured):
        values = [grid[row, column].value if (row, column) in grid else None for column in columns]
        if (row, '') in grid:  # such as clean: one number in place of a row of them
            value = make_cell(metric, grid[row, ''].value)
            rest = [*[words('')] * len(columns), value] if has_mean else [value, *[words('')] * len(columns)]
            rows.append((words(row or 'clean'), *rest))
        elif layout.columns:
            mean = [make_cell(metric, average_row(grid, places, row))] if has_mean else []
            rows.append((words(row), *first, *(make_cell(metric, value) for value in values), *mean))
        else:
            record = grid[row, metric]
            estimate = Estimate.of_rate(record.value, record.count) if metric.endswith(RATES) else record.value
            rows.append((words(row), make_cell(metric, estimate), count(record.count)))  # type: ignore[arg-type]
    if layout.mean_row and len({row for row, column in places if column}) > 1:
        cells = [[grid[place].value if place in grid else None for place in places if place[1] == column]
                 for column in columns]
        everything = [grid[place].value if place in grid else None for place in places if place[1]]
        means = [*map(average, cells), *([average(everything)] if has_mean else [])]
        rows.append((words('mean'), *first, *(make_cell(metric, value) for value in means)))
    titles: tuple[str, ...] = (layout.rows, metric, 'images')
    if layout.columns:
        titles = (metric, *(['clean'] if has_clean else []), *columns, *(['mean'] if has_mean else []))
    subject = results.label if 'dataset' in (layout.rows, layout.columns) else results.subject
    caption = (f'{metric} of {subject}{", in percent" if is_fraction(metric) else ""}, by {layout.rows}'
               f'{layout.columns and f" and {layout.columns}"}.')
    return Sheet(f'{name}_{metric}', caption, titles, tuple(rows))


def average(values: Sequence[float | None]) -> float | None:
    """Return the mean, None if a value is missing."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def _parse_number(text: str) -> float:
    """Return the value of a number or a fraction, infinity for other texts."""
    numerator, _, denominator = text.partition('/')
    try:
        return float(numerator) / float(denominator or 1)
    except ValueError:
        return math.inf
