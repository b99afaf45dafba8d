"""Results made by hand, of which every number is known."""

from collections.abc import Mapping

import numpy as np

from pit_downstream.benchmarks.base import Benchmark
from pit_downstream.results.condition import Condition
from pit_downstream.results.records import Record, Table
from pit_downstream.results.results import Results


def make_table(values: Mapping, *, model: str = 'm', dataset: str = 'imagenet', metric: str = 'top1_error',
               count: int = 100) -> Table:
    """Return a table from values by condition, or by (condition, metric[, layer])."""
    keys = {key if isinstance(key, tuple) else (key, metric): value for key, value in values.items()}
    return Table(model, dataset, [Record(model, dataset, str(key[0]), key[1], value, count, 0, *key[2:])
                                  for key, value in keys.items()])


def make_results(benchmark: Benchmark, values: Mapping, *, argv=(), outcomes: Mapping[str, str] | None = None,
                 **options) -> Results:
    """Return the results of one dataset.

    Args:
        values: As for make_table, with its `options`.
        outcomes: Digits by condition, 0 for a correct image, 1 for a wrong one, ? for one without an outcome.
    """
    def read_outcomes(dataset: str, condition: Condition, metric: str) -> np.ndarray | None:
        digits = (outcomes or {}).get(str(condition))
        return None if digits is None or metric != 'top1_error' else np.array(
            [np.nan if digit == '?' else float(digit) for digit in digits])
    return Results(benchmark, {'data': make_table(values, **options)}, read_outcomes=read_outcomes, argv=argv)


def without(results: Results, *conditions: str) -> Results:
    """Return the results without the records of some conditions."""
    tables = {name: Table(table.model, table.dataset, [record for record in table.records
                                                       if record.condition not in conditions])
              for name, table in results.tables.items()}
    return Results(results.benchmark, tables, argv=results.argv)


def get_rows(sheet) -> list[list[str]]:
    """Return the texts of a sheet, with its columns first, as in a terminal."""
    return [list(sheet.columns), *([cell.fraction or cell.text for cell in row] for row in sheet.rows)]
