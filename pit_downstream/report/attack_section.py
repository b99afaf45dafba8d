"""Report section on classifiers under attack: robust accuracy by attack and epsilon, and the worst case."""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from pit_downstream.benchmarks import adversarial
from pit_downstream.benchmarks.adversarial import ERROR, Rate
from pit_downstream.results.condition import Condition
from pit_downstream.utils.registry import SECTIONS
from pit_downstream.utils.spec import Spec
from pit_downstream.report import plots as charts
from pit_downstream.report.commands import classifier_command
from pit_downstream.report.grids import lacking
from pit_downstream.report.measured import Group, Measured, ModelResults, sources
from pit_downstream.report.parts import Cell, Figure, Gap, Heading, Part, Section, Sheet, number, percent, words

TRANSFER = 'transfer'
WORST = 'worst_case'
COST = ('forwards', 'backwards')

Curve = list[tuple[float, Rate]]


def attacked(condition: Condition) -> bool:
    return condition.attack is not None


def white_box(condition: Condition) -> bool:
    """Return whether the condition attacks the measured model itself."""
    return condition.attack is not None and condition.attack.name != TRANSFER


@SECTIONS.register('attacks')
def attacks_section(measured: Measured) -> Section:
    """Build the section on robust accuracy of classifiers by attack and epsilon."""
    parts: list[Part] = []
    for group in measured.groups(lambda one: one.holds(white_box, ERROR)):
        parts += [Heading(group.name), *_over(measured, group, 'epsilon'), *_over(measured, group, 'steps'),
                  _accuracies(measured, group)]
    gaps = [Gap(f'{one.label}: no accuracy under attack',
                classifier_command(measured.kept, 'eval_adversarial.py', one.model))
            for one in lacking(measured, lambda one: one.classifies, lambda one: one.holds(white_box, ERROR))]
    lead = ('Robust accuracy: the share of all images that are still classified rightly after the attack, in per cent. '
            'Epsilon is how far a pixel may move on the scale of [0, 1]. An attack bounds robustness from above: a '
            'stronger one may find more. In the worst case an image counts as right only where every attack failed.')
    return Section('attacks', 'Attacks', lead, tuple(parts), tuple(gaps))


def worst_cases(measured: Measured, one: ModelResults, *, least: int = 1) -> dict[Condition, Rate]:
    """Return the accuracy over all white-box attacks of a norm and epsilon, if there are at least `least` of them.

    Several attacks need verdicts on the same images. Without them the entry is omitted.
    """
    kept = measured.kept.verdicts.get(one.key, {})
    groups: dict[Condition, list[Condition]] = {}
    for condition in one.conditions(ERROR):
        if white_box(condition):
            groups.setdefault(_size(condition), []).append(condition)
    found: dict[Condition, Rate] = {}
    for worst, several in groups.items():
        images = {frozenset(kept.get(str(condition), ())) for condition in several}
        if len(several) == 1 and least == 1:
            found[worst] = adversarial.get_accuracy(one.table, several[0])
        elif len(several) >= least and len(images) == 1 and images != {frozenset()}:
            found |= adversarial.compute_worst_cases({condition: kept[str(condition)] for condition in several})
    return found


def single_attacks(one: ModelResults) -> dict[Condition, Rate]:
    """Return, for each norm and epsilon, the accuracy under the strongest white-box attack."""
    found: dict[Condition, Rate] = {}
    for condition in filter(white_box, one.conditions(ERROR)):
        rate, size = adversarial.get_accuracy(one.table, condition), _size(condition)
        if size not in found or rate.value < found[size].value:
            found[size] = rate
    return found


def attack_cells(condition: Condition) -> list[Cell]:
    """Return the cells for attack, norm and epsilon. Epsilon sorts by size."""
    name, norm, size = adversarial.describe_condition(condition)
    epsilon = condition.attack.get('epsilon') if condition.attack else 0
    return [words('none' if name == 'clean' else name), words(norm),
            Cell(size, float(epsilon) if isinstance(epsilon, (int, float, Fraction)) else None)]


def rate_cell(rate: Rate) -> Cell:
    return percent(rate.value, (rate.low, rate.high))


def axis(argument: str, xs: Sequence[float]) -> str:
    """Return the axis label for an argument of an attack."""
    return argument if argument != 'epsilon' else 'epsilon, in 255ths' if _levels(xs) else 'epsilon'


def ticks(xs: Sequence[float]) -> dict[float, str]:
    """Return a tick for every point, without ticks that overlap."""
    kept: dict[float, str] = {}
    for x in xs:
        if not kept or x - max(kept) >= .045 * (max(xs) - min(xs)):
            kept[x] = f'{round(255 * x)}' if _levels(xs) else f'{x:g}'
    return kept


def _accuracies(measured: Measured, group: Group) -> Sheet:
    """Build a table with a row per model and attack, conditions without attack first and worst cases last."""
    rows = []
    for one in group.ones:
        attacks = [condition for condition in one.conditions(ERROR) if white_box(condition)]
        still = [rest for rest in dict.fromkeys(Condition(attack.corruption) for attack in attacks)
                 if (rest, ERROR) in one.table]
        for condition in (*still, *attacks):
            cost = [number(one.table[condition, metric] if (condition, metric) in one.table else None)
                    for metric in COST]
            rows.append((one.cell, *attack_cells(condition), rate_cell(adversarial.get_accuracy(one.table, condition)),
                         *cost))
        rows += [(one.cell, *attack_cells(size), rate_cell(rate), number(None), number(None))
                 for size, rate in worst_cases(measured, one, least=2).items()]
    caption = (f'Accuracy on all images of {group.name}, in per cent with 95 % intervals (Wilson); forwards and '
               f'backwards are images taken through the model and back, per image. {sources(group.ones)}')
    return Sheet(f'attacks{group.short}', caption, ('model', 'attack', 'norm', 'epsilon', 'accuracy', *COST),
                 tuple(rows), folded=True)


def _over(measured: Measured, group: Group, argument: str) -> Iterable[Figure]:
    """Yield a panel per attack, and over epsilon one for the worst case, with a line per model."""
    lines: dict[Condition, dict[ModelResults, Curve]] = {}
    for one in group.ones:
        found = {Condition.parse(name): points for name,
                 points in adversarial.group_curves(one.table, argument).items()}
        if argument == 'epsilon':
            found |= _worst_curves(worst_cases(measured, one, least=2))
        for rest, points in found.items():
            if white_box(rest):
                lines.setdefault(rest, {})[one] = [*_start(one, rest, argument), *points]
    for index, (rest, series) in enumerate(lines.items(), 1):
        yield _curve(measured, group, rest, argument, series, f'robust_over_{argument}{group.short}_{index}')


def _start(one: ModelResults, rest: Condition, argument: str) -> Curve:
    """Return the accuracy without the attack as the point at epsilon 0."""
    still = Condition(rest.corruption)
    known = argument == 'epsilon' and (still, ERROR) in one.table
    return [(0., adversarial.get_accuracy(one.table, still))] if known else []


def _worst_curves(worst: Mapping[Condition, Rate]) -> dict[Condition, Curve]:
    found: dict[Condition, Curve] = {}
    for condition, rate in worst.items():
        epsilon = condition.attack.get('epsilon') if condition.attack else None
        if condition.attack and isinstance(epsilon, (int, float, Fraction)):
            rest = Condition(condition.corruption, condition.attack.without('epsilon'))
            found.setdefault(rest, []).append((float(epsilon), rate))
    return {rest: sorted(points, key=lambda point: point[0]) for rest, points in found.items() if len(points) > 1}


def _curve(measured: Measured, group: Group, rest: Condition, argument: str, series: Mapping[ModelResults, Curve],
           name: str) -> Figure:
    attack, norm, size = adversarial.describe_condition(rest)
    said = f'{attack}, {norm} {size}'.rstrip()
    xs = sorted({x for points in series.values() for x, _ in points})
    drawn = {one.label: [(x, rate.value, rate.low, rate.high) for x, rate in points] for one, points in series.items()}
    drawing = charts.curves(said, drawn, measured.numbers, ylabel='accuracy, %',
                            xlabel=axis(argument, xs), ticks=ticks(xs))
    points = tuple({'model': one.label, 'attack': str(rest), argument: x, 'value': rate.value, 'low': rate.low,
                    'high': rate.high} for one, points in series.items() for x, rate in points)
    under = 'in the worst case' if rest.attack and rest.attack.name == WORST else f'under {attack}'
    return Figure(name, f'Accuracy {under} ({said.partition(", ")[2]}) on {group.name}, over {argument}, with 95 % '
                  f'intervals (Wilson). {sources(list(series))}', drawing, points)


def _size(condition: Condition) -> Condition:
    """Return the worst-case condition of attacks with this norm and epsilon."""
    kwargs = condition.attack.kwargs if condition.attack else ()
    size = {key: value for key, value in kwargs if key in adversarial.THREAT_ARGUMENTS}
    return Condition(condition.corruption, Spec.of(WORST, **size))


def _levels(xs: Sequence[float]) -> bool:
    """Return whether all values are gray levels, n/255."""
    return any(xs) and all(abs(255 * x - round(255 * x)) < 1e-9 for x in xs) and max(xs) < 1
