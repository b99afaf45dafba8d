"""Adversarial robustness: accuracy of a classifier under attacks of growing size, on all images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

from pit_downstream.benchmarks.base import Benchmark
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.intervals import Estimate
from pit_downstream.results.layout import Layout
from pit_downstream.results.records import Table
from pit_downstream.results.results import format_epsilon, get_epsilon
from pit_downstream.results.tables import MISSING, Cell, Sheet, rate, words
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Spec, Value

if TYPE_CHECKING:
    import numpy as np

    from pit_downstream.results.results import Results

ERROR = 'top1_error'
COSTS = ('forwards', 'backwards')  # images in forward and backward passes, per image
EPSILONS = ('1/255', '2/255', '4/255', '8/255')
ATTACKS = ('noise', 'fgsm', 'pgd(steps=20)', 'autoattack')
THREAT_ARGUMENTS = ('norm', 'epsilon', 'count', 'side')  # arguments of a threat model, the last two of patches
WORST = 'worst_case'
TRANSFER = 'transfer'  # attack whose images are computed on another model

T = TypeVar('T')


@BENCHMARKS.register('adversarial')
@dataclass(frozen=True)
class Adversarial(Benchmark):
    """Accuracy under attacks, and in the worst case of all attacks of one norm and epsilon.

    Attributes:
        attacks: Names with arguments. An attack that sets a norm or epsilon keeps it. () evaluates only corruptions.
        norm: 'Linf', 'L2' or 'L1'.
        epsilons: Sizes of perturbations for pixels in [0, 1], as text ('8/255').
        corruptions: Corruptions with arguments whose images are also attacked.
        source: Classifier on which adversarial images are computed (transfer attack).
    """

    name = 'adversarial'
    title = 'Attacks'
    about = ('Robust accuracy: the share of all images that are still classified correctly after the attack, in '
             'percent. Epsilon is how far a pixel may move on the scale of [0, 1]. An attack bounds robustness from '
             'above: a stronger one may find more. In the worst case an image counts as correct only where every '
             'attack failed.')
    layout = Layout(rows='attack', columns='epsilon', value=ERROR, mean=False)

    attacks: tuple[str, ...] = field(default=ATTACKS, metadata={
        'help': "names with arguments: 'pgd(steps=20, restarts=5)'; an attack with an explicit norm or epsilon keeps "
        'it; none evaluates only the corruptions', 'nargs': '*', 'metavar': 'ATTACK',
        'default': f'{" ".join(ATTACKS)}; of a detector noise pgd(steps=10)'})
    norm: str = field(default='Linf', metadata={'help': 'Linf, L2 or L1'})
    epsilons: tuple[str, ...] = field(default=EPSILONS, metadata={
        'help': 'perturbation sizes for pixels in [0, 1]', 'default': f'for Linf: {" ".join(EPSILONS)}',
        'metavar': 'N/255'})
    corruptions: tuple[str, ...] = field(default=(), metadata={
        'help': "also attack images under these corruptions, such as 'fog(severity=3)'", 'metavar': 'CORRUPTION'})
    source: str | None = field(default=None, metadata={
        'help': 'transfer attack: compute the adversarial images on this classifier, such as resnet50 or '
        '"pit_s(weights=\'FILE\')"', 'default': '--model', 'metavar': 'MODEL'})

    def conditions(self) -> tuple[Condition, ...]:
        return list_conditions(map(Spec.parse, self.attacks), map(parse_epsilon, self.epsilons), norms=[self.norm],
                               corruptions=[None, *map(Spec.parse, self.corruptions)])

    def metric_names(self, task: str) -> tuple[str, ...]:
        return (ERROR,)

    def summarize(self, results: 'Results') -> dict[str, Estimate]:
        """Return accuracies by condition, 'accuracy(clean)' first, and those in the worst case."""
        table = results.table
        table.require([(CLEAN, ERROR)])
        accuracies = {f'accuracy({condition})': get_accuracy(table, condition)
                      for condition in (CLEAN, *list_attacked_conditions(table))}
        return accuracies | {f'accuracy({condition})': estimate
                             for condition, estimate in compute_worst_cases(results).items()}

    def tabulate(self, results: 'Results') -> list[Sheet]:
        """Return a row per condition: accuracy on all images, passes per image. Worst cases come last."""
        table, rows = results.table, []
        for condition in self.conditions():
            measured = (condition, ERROR) in table
            costs = [_make_cost(table[condition, metric]) if (condition, metric) in table else words('')
                     for metric in COSTS]
            rows.append((*make_condition_cells(condition),
                         rate(get_accuracy(table, condition) if measured else None), *costs))
        rows += [(*make_condition_cells(condition), rate(estimate), words(''), words(''))
                 for condition, estimate in compute_worst_cases(results).items()]
        caption = (f'Accuracy of {results.subject}, in percent with 95 % intervals '
                   '(Wilson); forwards and backwards are images in passes through the model and back, per image.')
        return [Sheet(self.name, caption, ('attack', 'norm', 'epsilon', 'accuracy', *COSTS), tuple(rows))]

    @property
    def tool(self) -> str:
        return 'eval-adversarial'


def _make_cost(passes: float) -> Cell:
    return Cell(f'{passes:.1f}', passes)


def parse_epsilon(text: str) -> Value:
    """Return the value of '8/255' or '0.5'; a decimal that is a gray level becomes a fraction.

    Raises InputError for other texts.
    """
    try:
        value = Spec.parse(f'_(epsilon={text})').get('epsilon')
    except InputError:
        value = None
    if isinstance(value, bool) or not isinstance(value, (int, float)) and not hasattr(value, 'numerator'):
        raise InputError(f'epsilon must be a number such as 8/255 or 0.5, got {text!r}. Change --epsilons.')
    if isinstance(value, float) and value == round(255 * value) / 255:  # 8 / 255 in Python
        return Fraction(round(255 * value), 255)
    return value


def list_conditions(attacks: Iterable[Spec], epsilons: Iterable[Value], *, norms: Iterable[str] = ('Linf',),
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


def get_accuracy(table: Table, condition: Condition) -> Estimate:
    """Return 1 - error on all images; robust accuracy if the condition has an attack."""
    record = table.record((condition, ERROR))
    return Estimate.of_rate(1 - record.value, record.count)


def list_attacked_conditions(table: Table) -> list[Condition]:
    """Return the conditions with an attack, in the order of the table."""
    parsed = (Condition.parse(record.condition) for record in table.records if record.metric == ERROR)
    return list(dict.fromkeys(condition for condition in parsed if condition.attack is not None))


def group_curves(values: Mapping[Condition, T], argument: str = 'epsilon') -> dict[Condition, list[tuple[float, T]]]:
    """Return values over an argument of the attack, by the condition without it, in ascending order.

    argument: 'epsilon', 'steps', 'restarts' ...
    """
    curves: dict[Condition, list[tuple[float, T]]] = {}
    for condition, value in values.items():
        attack, x = condition.attack, get_number(condition.attack, argument)
        if attack and x is not None:
            curves.setdefault(Condition(condition.corruption, attack.without(argument)), []).append((x, value))
    return {rest: sorted(points, key=lambda point: point[0]) for rest, points in curves.items()}


def is_white_box(condition: Condition) -> bool:
    """Return whether the condition attacks the measured model itself."""
    return condition.attack is not None and condition.attack.name != TRANSFER


def get_transfer(condition: Condition) -> tuple[str, Spec] | None:
    """Return source and attack of images that were computed on another model from clean ones, None for other images.

    "clean + transfer(attack='pgd', source='resnet50', steps=10)" gives 'resnet50' and pgd(steps=10).
    """
    attack = condition.attack
    if attack is None or attack.name != TRANSFER or condition.corruption is not None:
        return None
    original = Spec.of(str(attack.get('attack')), **dict(attack.without('attack', 'source').kwargs))
    return str(attack.get('source')), original


def get_number(attack: Spec | None, argument: str) -> float | None:
    """Return a numeric argument of an attack, None for other ones."""
    if argument == 'epsilon':
        return get_epsilon(attack)
    value: Any = attack.get(argument) if attack else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def compute_worst_cases(results: 'Results', *, at_least: int = 2, is_included: Any = None) -> dict[Condition, Estimate]:
    """Return the accuracy of images that withstand every attack of one norm and epsilon, on one corruption.

    The attack of a key is named worst_case, with that norm and epsilon. A group is omitted if it has fewer attacks than
    `at_least`, or if per-image outcomes of several attacks are not stored.

    Args:
        is_included: Returns whether a condition takes part, all by default.
    """
    groups: dict[Condition, list[Condition]] = {}
    for condition in list_attacked_conditions(results.table):
        if is_included is None or is_included(condition):
            groups.setdefault(get_worst_case(condition), []).append(condition)
    worst = {}
    for case, conditions in groups.items():
        if len(conditions) < at_least:
            continue
        if len(conditions) == 1:
            worst[case] = get_accuracy(results.table, conditions[0])
            continue
        errors = [results.get_outcomes(condition, ERROR) for condition in conditions]
        if (estimate := _combine(errors)) is not None:
            worst[case] = estimate
    return worst


def get_worst_case(condition: Condition) -> Condition:
    """Return the worst-case condition of attacks with the same norm and epsilon."""
    kwargs = condition.attack.kwargs if condition.attack else ()
    size = {key: value for key, value in kwargs if key in THREAT_ARGUMENTS}
    return Condition(condition.corruption, Spec.of(WORST, **size))


def _combine(errors: 'Sequence[np.ndarray | None]') -> Estimate | None:
    """Return the accuracy over several attacks, None unless all have outcomes of the same images."""
    import numpy as np
    known = [np.isfinite(error) for error in errors if error is not None]
    if len(known) < len(errors) or any(not np.array_equal(known[0], other) for other in known) or not known[0].any():
        return None
    stacked = np.stack([error[known[0]] for error in errors if error is not None])
    correct = (stacked == 0).all(0)
    return Estimate.of_rate(float(correct.sum()) / len(correct), len(correct))


def describe_condition(condition: Condition) -> tuple[str, str, str]:
    """Return three texts: corruption and attack without norm and epsilon, the norm, and the epsilon."""
    attack = condition.attack
    if attack is None:
        return str(condition), '', ''
    name = str(attack.without('norm', 'epsilon')).replace(WORST, 'worst case')
    if condition.corruption is not None:
        name = f'{condition.corruption} + {name}'
    return name, str(attack.get('norm', 'Linf')), format_epsilon(attack)


def make_condition_cells(condition: Condition) -> tuple[Cell, Cell, Cell]:
    """Return the cells for attack, norm and epsilon. Epsilon sorts by size."""
    name, norm, epsilon = describe_condition(condition)
    size = 0. if condition.attack is None else get_epsilon(condition.attack)
    return words(name), words(norm), Cell(epsilon, size, fraction=epsilon or ' ')


def describe_threat(condition: Condition) -> str:
    """Return a label such as 'Linf 8/255', or 'patch' for a patch."""
    attack = condition.attack or Spec(WORST)
    norm, epsilon = str(attack.get('norm', 'Linf')), format_epsilon(attack)
    return f'{norm} {epsilon}'.strip() or MISSING


def find_strongest(results: 'Results') -> Mapping[Condition, Estimate]:
    """Return, for each norm and epsilon, the accuracy under the strongest attack."""
    strongest: dict[Condition, Estimate] = {}
    for condition in list_attacked_conditions(results.table):
        estimate, case = get_accuracy(results.table, condition), get_worst_case(condition)
        if case not in strongest or estimate.value < strongest[case].value:
            strongest[case] = estimate
    return strongest
