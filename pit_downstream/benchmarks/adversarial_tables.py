"""Accuracies under attack as text, CSV and JSON."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from pit_downstream.results.condition import Condition
from pit_downstream.results.records import Record, Table
from pit_downstream.utils.spec import Spec, spelled
from pit_downstream.benchmarks import adversarial
from pit_downstream.benchmarks.adversarial import ERROR, Rate
from pit_downstream.benchmarks.base import wilson
from pit_downstream.benchmarks.tables import aligned, number

_COLUMNS = ('model', 'dataset', 'condition', 'corruption', 'attack', 'norm', 'epsilon', 'metric', 'value', 'low',
            'high', 'count', 'seed')


def as_text(table: Table, conditions: Sequence[Condition], worst: Mapping[Condition, Rate]) -> str:
    """Return a line per condition: accuracy on all images, its interval, passes per image. Worst cases come last."""
    rows = [['attack', 'norm', 'epsilon', 'accuracy', '95 %', 'forwards', 'backwards']]
    for condition in conditions:
        cost = [f'{table[condition, metric]:.1f}' if (condition, metric) in table else ''
                for metric in ('forwards', 'backwards')]
        rows.append([*words(condition), *_cells(adversarial.accuracy(table, condition)), *cost])
    rows += [[*words(condition), *_cells(rate), '', ''] for condition, rate in worst.items()]
    return aligned(rows)


def as_csv(table: Table) -> str:
    """Return one line per record; low and high are the ends of the 95 % interval (Wilson) of an error."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(map(_row, table.records))
    return out.getvalue()


def as_json(table: Table, worst: Mapping[Condition, Rate], warnings: Sequence[str] = ()) -> str:
    """Return {'model', 'dataset', 'summary', 'worst_cases', 'curves', 'warnings', 'records'}.

    curves: by argument, 'epsilon' and 'steps', then by attack; entries are [value, accuracy with its interval].
    """
    curves = {argument: {name: [[value, asdict(rate)] for value, rate in points]
                         for name, points in adversarial.curves(table, argument).items()}
              for argument in ('epsilon', 'steps')}
    return json.dumps({'model': table.model, 'dataset': table.dataset, 'summary': adversarial.summarise(table),
                       'worst_cases': {str(condition): asdict(rate) for condition, rate in worst.items()},
                       'curves': curves, 'warnings': list(warnings), 'records': list(map(_row, table.records))},
                      indent=1) + '\n'


def words(condition: Condition) -> list[str]:
    """Return three texts: corruption and attack without norm and epsilon, the norm, and the epsilon."""
    attack = condition.attack
    if attack is None:
        return [str(condition), '', '']
    rest = attack.without('norm', 'epsilon')
    name = str(rest).replace('worst_case', 'worst case')
    if condition.corruption is not None:
        name = f'{condition.corruption} + {name}'
    return [name, str(attack.get('norm', 'Linf')), _epsilon(attack)]


def _epsilon(attack: Spec) -> str:
    return spelled(attack.get('epsilon')) if attack.get('epsilon') is not None else ''


def _cells(rate: Rate) -> list[str]:
    return [number(rate.value), f'{number(rate.low)} to {number(rate.high)}']


def _row(record: Record) -> dict:
    condition = Condition.parse(record.condition)
    attack = condition.attack
    low, high = wilson(record.value, record.count) if record.metric == ERROR else ('', '')
    return {'model': record.model, 'dataset': record.dataset, 'condition': record.condition,
            'corruption': '' if condition.corruption is None else str(condition.corruption),
            'attack': '' if attack is None else str(attack.without('norm', 'epsilon')),
            'norm': '' if attack is None else attack.get('norm', 'Linf'),
            'epsilon': '' if attack is None else _epsilon(attack),
            'metric': record.metric, 'value': record.value, 'low': low, 'high': high, 'count': record.count,
            'seed': record.seed}
