"""AP of a detector with and without attack, on the same images: curves over epsilon as text and JSON."""

import json
from collections.abc import Sequence
from fractions import Fraction

from pit_downstream.results.condition import Condition
from pit_downstream.results.records import Table
from pit_downstream.utils.spec import Spec, Value, format_value
from pit_downstream.benchmarks import coco_c
from pit_downstream.benchmarks.tables import align_columns, format_number

Curve = list[tuple[float, float]]  # (epsilon, value) in ascending order


def format_table(table: Table, conditions: Sequence[Condition]) -> str:
    """Return for each AP a line without attack and one per attack, with a column per epsilon.

    '-' marks an epsilon that was not measured.
    """
    return '\n\n'.join(_metric_text(table, metric, conditions) for metric in _chief(table))


def format_json(table: Table) -> str:
    """Return {'model', 'dataset', 'clean', 'curves', 'records'}.

    clean: by metric. curves: by metric, then by condition without epsilon; pairs [epsilon, value].
    """
    metrics = coco_c.list_measured_metrics(table)
    clean = {metric: {str(condition): table[condition, metric] for condition in _conditions(table)
                      if condition.attack is None and (condition, metric) in table} for metric in metrics}
    return json.dumps({'model': table.model, 'dataset': table.dataset, 'clean': clean,
                       'curves': {metric: group_curves(table, metric) for metric in metrics},
                       'records': [vars(record) for record in table.records]}, indent=1) + '\n'


def group_curves(table: Table, metric: str) -> dict[str, Curve]:
    """Return a metric over epsilon, by the condition without epsilon."""
    found: dict[str, Curve] = {}
    for condition in _conditions(table):
        epsilon = condition.attack.get('epsilon') if condition.attack else None
        if isinstance(epsilon, (int, float, Fraction)) and (condition, metric) in table:
            found.setdefault(str(_still(condition)), []).append((float(epsilon), table[condition, metric]))
    return {name: sorted(points) for name, points in found.items()}


def _metric_text(table: Table, metric: str, conditions: Sequence[Condition]) -> str:
    epsilons = sorted({one.attack.get('epsilon') for one in conditions if one.attack}, key=_size)
    rows = [[metric, 'no attack', *map(_spelled, epsilons)]]
    for condition in conditions:
        if condition.attack is None:
            rows.append([str(condition), format_number(table[condition, metric]), *[''] * len(epsilons)])
    for still in dict.fromkeys(_still(one) for one in conditions if one.attack):
        cells = [_sized(still, epsilon) for epsilon in epsilons]
        rows.append([str(still), '', *(format_number(table[cell, metric] if (cell, metric) in table else None)
                                       for cell in cells)])
    return align_columns(rows)


def _chief(table: Table) -> list[str]:
    """Return the metrics of a text table: AP of boxes and of masks, or AP50 without AP."""
    measured = coco_c.list_measured_metrics(table)
    return [metric for metric in measured if metric in ('AP', 'mask_AP')] or list(measured[:1])


def _conditions(table: Table) -> list[Condition]:
    return list(dict.fromkeys(Condition.parse(record.condition) for record in table.records))


def _still(condition: Condition) -> Condition:
    return Condition(condition.corruption, condition.attack and condition.attack.without('epsilon'))


def _sized(still: Condition, epsilon: Value) -> Condition:
    """Return the condition `still` with this epsilon."""
    attack = still.attack
    return Condition(still.corruption, attack and Spec.of(attack.name, **{**dict(attack.kwargs), 'epsilon': epsilon}))


def _size(epsilon: Value) -> float:
    return float(epsilon) if isinstance(epsilon, (int, float, Fraction)) else float('inf')


def _spelled(epsilon: Value) -> str:
    return '' if epsilon is None else format_value(epsilon)
