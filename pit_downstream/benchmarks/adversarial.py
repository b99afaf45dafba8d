"""Adversarial robustness: accuracy of a classifier under attacks of growing size, on all images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.records import Table
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Spec, Value
from pit_downstream.benchmarks.base import Benchmark, wilson

ERROR = 'top1_error'
METRICS = (ERROR, 'forwards', 'backwards')  # the latter count forward and backward passes per image
LEVELS = tuple(Fraction(level, 255) for level in (1, 2, 4, 8))
USUAL = (Spec.of('noise'), Spec.of('fgsm'), Spec.of('pgd', steps=20), Spec.of('autoattack'))

SIZE = ('norm', 'epsilon', 'count', 'side')  # arguments of a threat model, the last two of patches

Verdicts = Mapping[str, bool]  # by image: whether the model was right


@dataclass(frozen=True)
class Rate:
    """Fraction of `count` images with its 95 % interval (Wilson)."""

    value: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, value: float, count: int) -> 'Rate':
        return cls(value, *wilson(value, count), count)


def conditions(attacks: Iterable[Spec] = USUAL, epsilons: Iterable[Value] = LEVELS, *, norms: Iterable[str] = ('Linf',),
               corruptions: Iterable[Spec | None] = (None,)) -> tuple[Condition, ...]:
    """Return every corruption (None: clean images) without attack, and with every attack at every epsilon.

    An attack that sets a norm or epsilon keeps it, and occurs once.
    """
    corruptions, norms, epsilons = list(corruptions), list(norms), list(epsilons)
    attacked = [sized(attack, norm, epsilon) for attack in attacks for norm in norms for epsilon in epsilons]
    every = [Condition(corruption) for corruption in corruptions]
    every += [Condition(corruption, attack) for corruption in corruptions for attack in attacked]
    return tuple(dict.fromkeys(every))


def sized(attack: Spec, norm: str, epsilon: Value) -> Spec:
    """Return the attack with this norm and epsilon, unless it sets them. A patch has no epsilon."""
    if attack.get('norm') == 'patch':
        return attack
    return Spec.of(attack.name, **{'norm': norm, 'epsilon': epsilon, **dict(attack.kwargs)})


def accuracy(table: Table, condition: Condition) -> Rate:
    """Return 1 - error on all images; robust accuracy if the condition has an attack."""
    record = table.record((condition, ERROR))
    return Rate.of(1 - record.value, record.count)


def attacks_in(table: Table) -> list[Condition]:
    """Return the conditions with an attack, in the order of the table."""
    parsed = (Condition.parse(record.condition) for record in table.records if record.metric == ERROR)
    return list(dict.fromkeys(condition for condition in parsed if condition.attack is not None))


def curves(table: Table, argument: str = 'epsilon') -> dict[str, list[tuple[float, Rate]]]:
    """Return robust accuracy over an argument: {'clean + pgd(steps=20)': [(1/255, rate), ...]}.

    Keys are conditions without the argument. argument: of the attack; 'epsilon', 'steps', 'restarts' ... A curve has at
    least two points, in ascending order.
    """
    found: dict[str, list[tuple[float, Rate]]] = {}
    for condition in attacks_in(table):
        attack = condition.attack
        value = attack.get(argument) if attack else None
        if attack and isinstance(value, (int, float, Fraction)):
            rest = Condition(condition.corruption, attack.without(argument))
            found.setdefault(str(rest), []).append((float(value), accuracy(table, condition)))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in found.items() if len(points) > 1}


def worst_cases(verdicts: Mapping[Condition, Verdicts]) -> dict[Condition, Rate]:
    """Return the fraction of images that withstand every attack of one norm and epsilon, if there are several.

    The attack of a key is named worst_case, with that norm and epsilon. Raises ValueError if the attacks were not made
    on the same images.
    """
    groups: dict[Condition, list[Verdicts]] = {}
    for condition, found in verdicts.items():
        if condition.attack is not None:
            size = {key: value for key, value in condition.attack.kwargs if key in SIZE}
            groups.setdefault(Condition(condition.corruption, Spec.of('worst_case', **size)), []).append(found)
    return {condition: _worst(condition, several) for condition, several in groups.items() if len(several) > 1}


def _worst(condition: Condition, several: Sequence[Verdicts]) -> Rate:
    ids = several[0].keys()
    if any(one.keys() != ids for one in several):
        raise ValueError(f'expected verdicts on the same images for {condition}, got {len(ids)} and others; run the '
                         'attacks to their end')
    return Rate.of(sum(all(one[id] for one in several) for id in ids) / len(ids), len(ids))


def summarise(table: Table) -> dict[str, float]:
    """Return accuracies by condition, 'accuracy(clean)' first. Raises MissingMeasurement without the clean accuracy."""
    table.require([(CLEAN, ERROR)], command='python tools/eval_adversarial.py with the flags of the first run')
    return {f'accuracy({condition})': accuracy(table, condition).value for condition in (CLEAN, *attacks_in(table))}


BENCHMARKS.register('adversarial')(
    Benchmark('adversarial', dataset='imagenet', conditions=conditions(), metrics=METRICS, summarise=summarise))
