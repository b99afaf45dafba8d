"""Figures of attacks on classifiers and detectors, and the section on transfer of attacks between models."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from pit_downstream.benchmarks import adversarial
from pit_downstream.benchmarks.adversarial import WORST
from pit_downstream.results.commands import build_command
from pit_downstream.results.condition import Condition
from pit_downstream.results.intervals import Estimate
from pit_downstream.results.results import Gap, format_epsilon
from pit_downstream.utils.spec import Spec
from pit_downstream.report import commands, plots
from pit_downstream.report.data import Group, ImageGroup, ReportData
from pit_downstream.report.models import ERROR, ModelResults, format_sources
from pit_downstream.report.parts import Figure, Heading, Part, Section, make_points, make_slug

USUAL = Spec.of('pgd', norm='Linf', epsilon=Fraction(8, 255), steps=10)  # suggested if nothing was transferred

Values = Mapping[Condition, Estimate]
Panels = dict[Condition, dict[str, list[tuple[float, Estimate]]]]


def draw_attacks(data: ReportData, group: Group) -> Iterator[Figure]:
    """Yield accuracy or AP over epsilon and over steps: a figure per model and norm, with a line per attack."""
    for entry, results in group.pairs:
        for metric in group.metrics:
            is_error = metric == ERROR
            values = {condition: adversarial.get_accuracy(results.table, condition) if is_error else
                      Estimate(results.table[condition, metric]) for condition in results.benchmark.conditions()
                      if (condition, metric) in results.table}
            worst = adversarial.compute_worst_cases(results) if is_error else {}
            noun = 'accuracy' if is_error else metric
            yield from _draw_lines(group, entry, {**values, **worst}, 'epsilon', noun)
            yield from _draw_lines(group, entry, values, 'steps', noun)


def _draw_lines(group: Group, entry: ModelResults, values: Values, argument: str, metric: str) -> Iterator[Figure]:
    """Yield a figure per norm (over steps: per norm and epsilon) and corruption, with a line per attack."""
    for index, (panel, series) in enumerate(_group_lines(values, argument).items(), 1):
        threat = adversarial.describe_threat(panel)
        title = f'{entry.label}: {threat}{f", {panel.corruption}" if panel.corruption else ""}'
        label, ticks = _label_axis(argument, sorted({x for points in series.values() for x, _ in points}))
        drawn, points = make_points(series, argument, key='attack', model=entry.label, norm=threat)
        drawing = plots.curves(title, drawn, {name: index for index, name in enumerate(drawn)}, dashed='worst case',
                               xlabel=label, ylabel=f'{metric}, %', ticks=ticks)
        under = f' on images under {panel.corruption}' if panel.corruption else ''
        yield Figure(f'{metric}_over_{argument}{group.suffix}_{make_slug(entry.label)}_{index}',
                     f'{entry.label}: {metric} under attack ({threat}) on {group.name}{under}, over {argument}'
                     f'{", with 95 % intervals (Wilson)" if metric == "accuracy" else ""}. {format_sources([entry])}',
                     drawing, points)


def _group_lines(values: Values, argument: str) -> Panels:
    """Return the points of each attack over an argument by norm, and by epsilon if that is another argument.

    Over epsilon, lines begin at 0 with the value without attack. A panel needs an attack with two points.
    """
    panels: Panels = {}
    for rest, line in adversarial.group_curves(values, argument).items():
        attack = rest.attack or Spec(WORST)
        threat = {key: value for key, value in attack.kwargs if key in ('norm', 'epsilon')}
        name = str(attack.without('norm', 'epsilon')).replace(WORST, 'worst case')
        panels.setdefault(Condition(rest.corruption, Spec.of(WORST, **threat)), {})[name] = line
    starts = {condition.corruption: [(0., value)] for condition, value in values.items()
              if condition.attack is None and argument == 'epsilon'}
    return {panel: {name: starts.get(panel.corruption, []) + line for name, line in lines.items()}
            for panel, lines in panels.items() if any(len(line) > 1 for line in lines.values())}


def _label_axis(argument: str, xs: Sequence[float]) -> tuple[str, dict[float, str]]:
    """Return the label of an axis, and a tick for every point but those that would overlap. Gray levels are n/255."""
    are_levels = any(xs) and max(xs) < 1 and all(abs(255 * x - round(255 * x)) < 1e-9 for x in xs)
    ticks: dict[float, str] = {}
    for x in xs:
        if not ticks or x - max(ticks) >= .045 * (max(xs) - min(xs)):
            ticks[x] = f'{round(255 * x)}' if are_levels else f'{x:g}'
    return 'epsilon, in 255ths' if argument == 'epsilon' and are_levels else argument, ticks


def build_transfer(data: ReportData) -> Section:
    """Build the matrices of robust accuracy: images computed on one model, classified by another."""
    parts: list[Part] = []
    gaps: list[Gap] = []
    for group in data.group_by_images(lambda entry: bool(_list_transferred(entry))):
        parts.append(Heading(group.name))
        attacks = dict.fromkeys(attack for entry in group.entries for attack in _list_transferred(entry))
        for index, attack in enumerate(attacks, 1):
            cells, sources = _collect_cells(data, group, attack)
            parts.append(_draw_matrix(group, attack, cells, list(sources), f'transfer{group.suffix}_{index}'))
            gaps += [_make_gap(data, target, sources[source], attack) for source in sources
                     for target in group.entries if (source, target.label) not in cells]
    classifiers = list({entry.number: entry for entry in data.entries if ERROR in entry.metrics}.values())
    if not parts:
        gaps = [_make_gap(data, target, source.model, USUAL) for target in classifiers for source in classifiers
                if target is not source]
    lead = ('Accuracy in percent, on all images, of the model of a column on images that were computed on the model of '
            'a row; on the diagonal the attack on the model itself.')
    return Section('transfer', 'Transfer', lead, tuple(parts), tuple(gaps))


def _list_transferred(entry: ModelResults) -> list[Spec]:
    """Return the attacks whose images were computed on another model and classified by this one."""
    return [transfer[1] for transfer in map(adversarial.get_transfer, entry.list_conditions(ERROR)) if transfer]


def _collect_cells(data: ReportData, group: ImageGroup, attack: Spec
                   ) -> tuple[dict[tuple[str, str], Estimate], dict[str, str]]:
    """Return the accuracies by labels of source and target, and the source models by label."""
    cells: dict[tuple[str, str], Estimate] = {}
    sources: dict[str, str] = {}
    for entry in group.entries:
        for condition in entry.list_conditions(ERROR):
            transfer = adversarial.get_transfer(condition)
            source, original = transfer or (entry.model, condition.attack)
            if condition.corruption is None and original == attack:
                label = data.get_label(source) if transfer else entry.label
                sources.setdefault(label, source)
                cells[label, entry.label] = adversarial.get_accuracy(entry.table, condition)
    return cells, sources


def _draw_matrix(group: ImageGroup, attack: Spec, cells: Mapping[tuple[str, str], Estimate], rows: list[str],
                 name: str) -> Figure:
    columns = [entry.label for entry in group.entries if any(entry.label == target for _, target in cells)]
    title = f'{attack.without("norm", "epsilon")}, {adversarial.describe_threat(Condition(None, attack))}'
    drawing = plots.heat_map(title, rows, columns, {
        (rows.index(source), columns.index(target)): estimate.value for (source, target), estimate in cells.items()},
        xlabel='classified by', ylabel='computed on')
    points = tuple({'computed on': source, 'classified by': target, 'attack': str(attack), 'value': estimate.value,
                    'low': estimate.low, 'high': estimate.high} for (source, target), estimate in cells.items())
    return Figure(name, f'Accuracy in percent on {group.name} under {title}: images computed on the model of the row, '
                  f'classified by that of the column. {format_sources(group.entries)}', drawing, points)


def _make_gap(data: ReportData, target: ModelResults, source: str, attack: Spec) -> Gap:
    """Return the gap of one cell with the command that fills it."""
    flags = {'--attacks': [str(attack.without('epsilon'))]}
    if attack.get('epsilon') is not None:
        flags['--epsilons'] = [format_epsilon(attack)]
    if data.get_label(source) != target.label:
        flags['--source'] = [commands.name_source(data.inputs.runs, data.find_model(source), source)]
    return Gap(f'{target.label}: not measured on images of {attack} computed on {data.get_label(source)}',
               build_command(data.choose_argv(target, 'eval-adversarial'), flags))
