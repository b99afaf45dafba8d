"""Report section on transfer: the effect of images made on one model on another model."""

from fractions import Fraction

from pit_downstream.benchmarks import adversarial
from pit_downstream.benchmarks.adversarial import ERROR, Rate
from pit_downstream.results.condition import Condition
from pit_downstream.utils.registry import SECTIONS
from pit_downstream.utils.spec import Spec, format_value
from pit_downstream.report import plots as charts
from pit_downstream.report.attack_section import TRANSFER
from pit_downstream.report.commands import as_source, classifier_command
from pit_downstream.report.measured import Group, Measured, ModelResults, sources
from pit_downstream.report.parts import Figure, Gap, Part, Section

USUAL = Spec.of('pgd', norm='Linf', epsilon=Fraction(8, 255), steps=10)  # suggested if nothing was transferred

Cells = dict[tuple[str, str], Rate]  # by source model and target model


@SECTIONS.register('transfer')
def transfer_section(measured: Measured) -> Section:
    """Build the matrices of robust accuracy: images made on one model, shown to another."""
    parts: list[Part] = []
    gaps: list[Gap] = []
    for group in measured.groups(lambda one: one.holds(transferred, ERROR)):
        for index, spec in enumerate(_attacks(group), 1):
            cells, models = _cells(measured, group, spec)
            parts.append(_matrix(group, spec, cells, list(models), f'transfer{group.short}_{index}'))
            gaps += [_gap(measured, target, models[source], spec) for source in models for target in group.ones
                     if (source, target.label) not in cells]
    one_each = list({one.number: one for one in measured.ones if one.classifies}.values())
    if not parts and len(one_each) > 1:
        gaps = [_gap(measured, target, source.model, USUAL) for target in one_each for source in one_each
                if target is not source]
    lead = ('Accuracy in per cent, on all images, when those made against the model of a row are shown to the model of '
            'a column; on the diagonal the attack on the model itself.')
    return Section('transfer', 'Transfer', lead, tuple(parts), tuple(gaps))


def transferred(condition: Condition) -> bool:
    """Return whether the condition is an attack on clean images that was made on another model."""
    return condition.attack is not None and condition.attack.name == TRANSFER and condition.corruption is None


def _attacks(group: Group) -> list[Spec]:
    """Return the transferred attacks as attacks on their source models."""
    return list(dict.fromkeys(_made(condition.attack) for one in group.ones for condition in one.conditions(ERROR)
                              if transferred(condition) and condition.attack))


def _made(attack: Spec) -> Spec:
    """Return the attack on the source: transfer(attack='pgd', source=..., steps=10) gives pgd(steps=10)."""
    return Spec.of(str(attack.get('attack')), **dict(attack.without('attack', 'source').kwargs))


def _cells(measured: Measured, group: Group, spec: Spec) -> tuple[Cells, dict[str, str]]:
    """Return the accuracies, and the source models by label."""
    cells: Cells = {}
    models: dict[str, str] = {}
    for one in group.ones:
        for condition in one.conditions(ERROR):
            own, attack = condition == Condition(None, spec), condition.attack
            if attack and (own or transferred(condition) and _made(attack) == spec):
                source = one.model if own else str(attack.get('source'))
                label = one.label if own else measured.label_of(source)
                models.setdefault(label, source)
                cells[label, one.label] = adversarial.get_accuracy(one.table, condition)
    return cells, models


def _matrix(group: Group, spec: Spec, cells: Cells, rows: list[str], name: str) -> Figure:
    columns = [one.label for one in group.ones]
    said = f'{spec.without("norm", "epsilon")}, {spec.get("norm", "Linf")}'
    said += f' {format_value(spec.get("epsilon"))}' if spec.get('epsilon') is not None else ''
    drawing = charts.heat_map(said, rows, columns, {(rows.index(source), columns.index(target)): rate.value
                                                    for (source, target), rate in cells.items()},
                              xlabel='shown to', ylabel='made on')
    points = tuple({'made on': source, 'shown to': target, 'attack': str(spec), 'value': rate.value, 'low': rate.low,
                    'high': rate.high} for (source, target), rate in cells.items())
    return Figure(name, f'Accuracy in per cent on {group.name} under {said}: images made on the model of the row, '
                  f'shown to that of the column. {sources(group.ones)}', drawing, points)


def _gap(measured: Measured, target: ModelResults, source: str, spec: Spec) -> Gap:
    """Return the gap of one cell with the command that fills it."""
    epsilon = [] if spec.get('epsilon') is None else ['--epsilons', format_value(spec.get('epsilon'))]
    other = [] if measured.label_of(source) == target.label else ['--source', as_source(measured.kept, source)]
    return Gap(f'{target.label}: not asked about the images of {spec} made on {measured.label_of(source)}',
               classifier_command(measured.kept, 'eval_adversarial.py', target.model, '--attacks',
                                  str(spec.without('epsilon')), *epsilon, *other))
