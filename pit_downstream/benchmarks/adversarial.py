"""Adversarial robustness: accuracy of a classifier under attacks of growing size, on all images.

Results as text, CSV and JSON.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction

from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.records import Record, Table
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Spec, Value, format_value
from pit_downstream.benchmarks.base import Benchmark, compute_wilson_interval
from pit_downstream.benchmarks.tables import align_columns, format_number

ERROR = 'top1_error'
METRICS = (ERROR, 'forwards', 'backwards')  # the latter count forward and backward passes per image
EPSILONS = tuple(Fraction(level, 255) for level in (1, 2, 4, 8))
DEFAULT_ATTACKS = (Spec.of('noise'), Spec.of('fgsm'), Spec.of('pgd', steps=20), Spec.of('autoattack'))

_COLUMNS = ('model', 'dataset', 'condition', 'corruption', 'attack', 'norm', 'epsilon', 'metric', 'value', 'low',
            'high', 'count', 'seed')
THREAT_ARGUMENTS = ('norm', 'epsilon', 'count', 'side')  # arguments of a threat model, the last two of patches

CorrectById = Mapping[str, bool]  # by image: whether the model was right


@dataclass(frozen=True)
class Rate:
    """Fraction of `count` images with its 95 % interval (Wilson)."""

    value: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, value: float, count: int) -> 'Rate':
        return cls(value, *compute_wilson_interval(value, count), count)


def list_conditions(attacks: Iterable[Spec] = DEFAULT_ATTACKS, epsilons: Iterable[Value] = EPSILONS, *,
                    norms: Iterable[str] = ('Linf',),
                    corruptions: Iterable[Spec | None] = (None,)) -> tuple[Condition, ...]:
    """Return every corruption (None: clean images) without attack, and with every attack at every epsilon.

    An attack that sets a norm or epsilon keeps it, and occurs once.
    """
    corruptions, norms, epsilons = list(corruptions), list(norms), list(epsilons)
    attacked = [set_norm_and_epsilon(attack, norm, epsilon) for attack in attacks for norm in norms
                for epsilon in epsilons]
    every = [Condition(corruption) for corruption in corruptions]
    every += [Condition(corruption, attack) for corruption in corruptions for attack in attacked]
    return tuple(dict.fromkeys(every))


def set_norm_and_epsilon(attack: Spec, norm: str, epsilon: Value) -> Spec:
    """Return the attack with this norm and epsilon, unless it sets them. A patch has no epsilon."""
    if attack.get('norm') == 'patch':
        return attack
    return Spec.of(attack.name, **{'norm': norm, 'epsilon': epsilon, **dict(attack.kwargs)})


def get_accuracy(table: Table, condition: Condition) -> Rate:
    """Return 1 - error on all images; robust accuracy if the condition has an attack."""
    record = table.record((condition, ERROR))
    return Rate.of(1 - record.value, record.count)


def list_attacked_conditions(table: Table) -> list[Condition]:
    """Return the conditions with an attack, in the order of the table."""
    parsed = (Condition.parse(record.condition) for record in table.records if record.metric == ERROR)
    return list(dict.fromkeys(condition for condition in parsed if condition.attack is not None))


def group_curves(table: Table, argument: str = 'epsilon') -> dict[str, list[tuple[float, Rate]]]:
    """Return robust accuracy over an argument: {'clean + pgd(steps=20)': [(1/255, rate), ...]}.

    Keys are conditions without the argument. argument: of the attack; 'epsilon', 'steps', 'restarts' ... A curve has at
    least two points, in ascending order.
    """
    found: dict[str, list[tuple[float, Rate]]] = {}
    for condition in list_attacked_conditions(table):
        attack = condition.attack
        value = attack.get(argument) if attack else None
        if attack and isinstance(value, (int, float, Fraction)):
            rest = Condition(condition.corruption, attack.without(argument))
            found.setdefault(str(rest), []).append((float(value), get_accuracy(table, condition)))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in found.items() if len(points) > 1}


def compute_worst_cases(verdicts: Mapping[Condition, CorrectById]) -> dict[Condition, Rate]:
    """Return the fraction of images that withstand every attack of one norm and epsilon, if there are several.

    The attack of a key is named worst_case, with that norm and epsilon. Raises InputError if the attacks were not made
    on the same images.
    """
    groups: dict[Condition, list[CorrectById]] = {}
    for condition, found in verdicts.items():
        if condition.attack is not None:
            size = {key: value for key, value in condition.attack.kwargs if key in THREAT_ARGUMENTS}
            groups.setdefault(Condition(condition.corruption, Spec.of('worst_case', **size)), []).append(found)
    return {condition: _worst(condition, several) for condition, several in groups.items() if len(several) > 1}


def _worst(condition: Condition, several: Sequence[CorrectById]) -> Rate:
    ids = several[0].keys()
    if any(one.keys() != ids for one in several):
        raise InputError(f'expected verdicts on the same images for {condition}, got {len(ids)} and others; run the '
                         'attacks to their end')
    return Rate.of(sum(all(one[id] for one in several) for id in ids) / len(ids), len(ids))


def summarize(table: Table) -> dict[str, float]:
    """Return accuracies by condition, 'accuracy(clean)' first. Raises MissingMeasurement without the clean accuracy."""
    table.require([(CLEAN, ERROR)], command='pit-downstream eval-adversarial with the flags of the first run')
    return {f'accuracy({condition})': get_accuracy(table, condition).value
            for condition in (CLEAN, *list_attacked_conditions(table))}


def format_table(table: Table, conditions: Sequence[Condition], worst: Mapping[Condition, Rate]) -> str:
    """Return a line per condition: accuracy on all images, its interval, passes per image. Worst cases come last."""
    rows = [['attack', 'norm', 'epsilon', 'accuracy', '95 %', 'forwards', 'backwards']]
    for condition in conditions:
        cost = [f'{table[condition, metric]:.1f}' if (condition, metric) in table else ''
                for metric in ('forwards', 'backwards')]
        rows.append([*describe_condition(condition), *_cells(get_accuracy(table, condition)), *cost])
    rows += [[*describe_condition(condition), *_cells(rate), '', ''] for condition, rate in worst.items()]
    return align_columns(rows)


def format_csv(table: Table) -> str:
    """Return one line per record; low and high are the ends of the 95 % interval (Wilson) of an error."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(map(_make_row, table.records))
    return out.getvalue()


def format_json(table: Table, worst: Mapping[Condition, Rate], warnings: Sequence[str] = ()) -> str:
    """Return {'model', 'dataset', 'summary', 'worst_cases', 'curves', 'warnings', 'records'}.

    curves: by argument, 'epsilon' and 'steps', then by attack; entries are [value, accuracy with its interval].
    """
    curves = {argument: {name: [[value, asdict(rate)] for value, rate in points]
                         for name, points in group_curves(table, argument).items()}
              for argument in ('epsilon', 'steps')}
    return json.dumps({'model': table.model, 'dataset': table.dataset, 'summary': summarize(table),
                       'worst_cases': {str(condition): asdict(rate) for condition, rate in worst.items()},
                       'curves': curves, 'warnings': list(warnings), 'records': list(map(_make_row, table.records))},
                      indent=1) + '\n'


def describe_condition(condition: Condition) -> list[str]:
    """Return three texts: corruption and attack without norm and epsilon, the norm, and the epsilon."""
    attack = condition.attack
    if attack is None:
        return [str(condition), '', '']
    rest = attack.without('norm', 'epsilon')
    name = str(rest).replace('worst_case', 'worst case')
    if condition.corruption is not None:
        name = f'{condition.corruption} + {name}'
    return [name, str(attack.get('norm', 'Linf')), _format_epsilon(attack)]


def _format_epsilon(attack: Spec) -> str:
    return format_value(attack.get('epsilon')) if attack.get('epsilon') is not None else ''


def _cells(rate: Rate) -> list[str]:
    return [format_number(rate.value), f'{format_number(rate.low)} to {format_number(rate.high)}']


def _make_row(record: Record) -> dict:
    condition = Condition.parse(record.condition)
    attack = condition.attack
    low, high = compute_wilson_interval(record.value, record.count) if record.metric == ERROR else ('', '')
    return {'model': record.model, 'dataset': record.dataset, 'condition': record.condition,
            'corruption': '' if condition.corruption is None else str(condition.corruption),
            'attack': '' if attack is None else str(attack.without('norm', 'epsilon')),
            'norm': '' if attack is None else attack.get('norm', 'Linf'),
            'epsilon': '' if attack is None else _format_epsilon(attack),
            'metric': record.metric, 'value': record.value, 'low': low, 'high': high, 'count': record.count,
            'seed': record.seed}


BENCHMARKS.register('adversarial')(
    Benchmark('adversarial', dataset='imagenet', conditions=list_conditions(), metrics=METRICS, summarize=summarize))
