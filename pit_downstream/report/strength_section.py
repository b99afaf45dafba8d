"""Report section on corruptions with a strength argument instead of a severity, such as occlusion."""

from collections.abc import Iterator
from fractions import Fraction

from pit_downstream.benchmarks import adversarial
from pit_downstream.benchmarks.adversarial import ERROR, Rate
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.utils.registry import SECTIONS
from pit_downstream.utils.spec import Spec
from pit_downstream.report import plots as charts
from pit_downstream.report.measured import Group, Measured, ModelResults, sources
from pit_downstream.report.parts import Figure, Section


@SECTIONS.register('strengths')
def strengths_section(measured: Measured) -> Section:
    """Build the section on accuracy over every argument that varies, by corruption."""
    parts = [figure for group in measured.groups(lambda one: one.holds(by_strength, ERROR))
             for figure in _figures(measured, group)]
    lead = 'Accuracy in per cent on clean images (at 0) and under a corruption of growing strength.'
    return Section('strengths', 'Strengths', lead, tuple(parts))


def by_strength(condition: Condition) -> bool:
    """Return whether the condition is a corruption without a severity, and without an attack."""
    return condition.attack is None and condition.corruption is not None and not condition.corruption.get('severity')


def _figures(measured: Measured, group: Group) -> Iterator[Figure]:
    lines: dict[tuple[Spec, str], dict[ModelResults, list[tuple[float, Rate]]]] = {}
    for one in group.ones:
        for condition in filter(by_strength, one.conditions(ERROR)):
            corruption = condition.corruption or Spec('clean')
            for name, value in corruption.kwargs:
                if isinstance(value, (int, float, Fraction)) and not isinstance(value, bool):
                    line = lines.setdefault((corruption.without(name), name), {}).setdefault(one, [])
                    line.append((float(value), adversarial.get_accuracy(one.table, condition)))
    varying = {what: series for what, series in lines.items() if any(len(line) > 1 for line in series.values())}
    for index, ((rest, name), series) in enumerate(varying.items(), 1):
        for one, line in series.items():
            if (CLEAN, ERROR) in one.table:
                line.append((0., adversarial.get_accuracy(one.table, CLEAN)))
            line.sort(key=lambda point: point[0])
        drawn = {one.label: [(x, rate.value, rate.low, rate.high) for x, rate in line] for one, line in series.items()}
        points = tuple({'model': one.label, 'corruption': str(rest), name: x, 'value': rate.value, 'low': rate.low,
                        'high': rate.high} for one, line in series.items() for x, rate in line)
        drawing = charts.curves(str(rest), drawn, measured.numbers, xlabel=name, ylabel='accuracy, %')
        yield Figure(f'strength{group.short}_{index}', f'Accuracy under {rest} on {group.name}, over {name}, with 95 % '
                     f'intervals (Wilson). {sources(list(series))}', drawing, points)
