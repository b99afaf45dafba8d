"""Figures of corruptions and shifts: CE, accuracy over a strength, and clean beside shifted errors."""

import math
from collections.abc import Iterator, Mapping

from pit_downstream.benchmarks import adversarial, imagenet_c, shifts
from pit_downstream.results.condition import CLEAN
from pit_downstream.results.intervals import Estimate
from pit_downstream.results.results import Results
from pit_downstream.results.tables import Cell, Sheet, missing, rate, words
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import Spec
from pit_downstream.report import plots
from pit_downstream.report.data import ALEXNET, Group, ReportData, get_numeric_arguments, is_by_strength
from pit_downstream.report.models import ERROR, ModelResults, format_sources
from pit_downstream.report.parts import Figure, Part, make_slug


def draw_ce(data: ReportData, group: Group) -> list[Part]:
    """Return CE per corruption and mCE, relative to a model on the same images or, on ImageNet, to AlexNet."""
    base = next((results for entry, results in group.pairs if entry.label == data.reference), None)
    known = (*imagenet_c.CORRUPTIONS, *imagenet_c.HOLD_OUT)
    names = [name for name in group.benchmark.corruptions if name in known or base]  # type: ignore[attr-defined]
    ratios = {entry: {name: ratio for name in names if (ratio := _compute_ratio(results, base, name)) is not None}
              for entry, results in group.pairs}
    if not any(ratios.values()):
        return []
    reference = data.reference if base else ALEXNET
    caption = (f'CE in percent of {reference}, on {group.name}: below 100 is better than {reference}.'
               f'{"" if base else " Lines are 95 % intervals."} {format_sources(group.entries)}')
    rows = [(words(name.replace('_', ' ')), *(rate(ratios[entry].get(name)) for entry in group.entries))
            for name in names if name in known or any(name in row for row in ratios.values())]
    rows.append((words('mCE of the fifteen'), *(_make_mce_cell(results, base, ratios[entry])
                                                for entry, results in group.pairs)))
    sheet = Sheet(f'ce{group.suffix}', caption, ('corruption', *(entry.label for entry in group.entries)), tuple(rows),
                  folded=True)
    drawn = {entry: row for entry, row in ratios.items() if row and entry.label != data.reference}
    return [*_draw_ratios(data, f'ce{group.suffix}', caption, drawn, reference), sheet]


def _draw_ratios(data: ReportData, name: str, caption: str, ratios: Mapping[ModelResults, Mapping[str, Estimate]],
                 reference: str) -> Iterator[Figure]:
    shown = list(dict.fromkeys(name for row in ratios.values() for name in row))
    if not shown:
        return
    values = {entry.label: {shown.index(name): tuple(None if end is None else 100 * end for end in (
        ratio.value, ratio.low, ratio.high)) for name, ratio in row.items()} for entry, row in ratios.items()}
    drawing = plots.bars(f'CE against {reference}', [name.replace('_', ' ') for name in shown], values, data.numbers,
                         xlabel=f'CE, % of {reference}', line=100)
    yield Figure(name, caption, drawing, tuple(
        {'model': entry.label, 'corruption': corruption, 'reference': reference, 'value': ratio.value,
         'low': ratio.low, 'high': ratio.high} for entry, row in ratios.items() for corruption, ratio in row.items()))


def _compute_ratio(results: Results, base: Results | None, name: str) -> Estimate | None:
    """Return CE with its interval, or the quotient of errors to those of `base` without one. None over a gap."""
    arguments = results.benchmark.arguments  # type: ignore[attr-defined]
    try:
        if base is not None:
            errors = [math.fsum(table[imagenet_c.make_condition(name, severity, **arguments), ERROR]
                                for severity in imagenet_c.SEVERITIES) for table in (results.table, base.table)]
            return Estimate(errors[0] / errors[1])
        if imagenet_c.has_alexnet(results.table.dataset):
            return imagenet_c.compute_ce(results.table, name, **arguments)
    except (InputError, ZeroDivisionError):  # missing severity, unknown AlexNet error, or perfect reference
        pass
    return None


def _make_mce_cell(results: Results, base: Results | None, ratios: Mapping[str, Estimate]) -> Cell:
    """Return mCE over all fifteen corruptions, or a dash."""
    if not all(name in ratios for name in imagenet_c.CORRUPTIONS):
        return missing()
    if base is None:
        return rate(imagenet_c.summarize(results.table, **results.benchmark.arguments)['mCE'])  # type: ignore
    return rate(math.fsum(ratios[name].value for name in imagenet_c.CORRUPTIONS) / len(imagenet_c.CORRUPTIONS))


def draw_strengths(data: ReportData, group: Group) -> Iterator[Figure]:
    """Yield accuracy over every argument of a corruption that varies, with a line per model."""
    lines: dict[tuple[Spec, str], dict[ModelResults, list[tuple[float, Estimate]]]] = {}
    for entry, results in group.pairs:
        for condition in results.benchmark.conditions():
            if is_by_strength(condition) and condition.corruption:
                for name, value in get_numeric_arguments(condition.corruption).items():
                    line = lines.setdefault((condition.corruption.without(name), name), {}).setdefault(entry, [])
                    line.append((value, adversarial.get_accuracy(results.table, condition)))
    varying = {key: series for key, series in lines.items() if any(len(line) > 1 for line in series.values())}
    for index, ((rest, name), series) in enumerate(varying.items(), 1):
        for entry, line in series.items():
            if (CLEAN, ERROR) in entry.table:
                line.append((0., adversarial.get_accuracy(entry.table, CLEAN)))
            line.sort(key=lambda point: point[0])
        drawn = {entry.label: [(x, one.value, one.low, one.high) for x, one in line] for entry, line in series.items()}
        drawing = plots.curves(str(rest), drawn, data.numbers, xlabel=name, ylabel='accuracy, %')
        points = tuple({'model': entry.label, 'corruption': str(rest), name: x, 'value': one.value, 'low': one.low,
                        'high': one.high} for entry, line in series.items() for x, one in line)
        yield Figure(f'strength{group.suffix}_{index}', f'Accuracy under {rest} on {group.name}, over {name}, with '
                     f'95 % intervals (Wilson). {format_sources(list(series))}', drawing, points)


def draw_shifts(data: ReportData, group: Group) -> Iterator[Figure]:
    """Yield the errors on shifted and on matching clean images, a figure per model."""
    for index, (entry, results) in enumerate(group.pairs, 1):
        names = list(shifts.list_measured_shifts(results.tables))
        values = {row: (shifts.get_clean_error(results.tables, name), shifts.get_record(
            results.tables, shifts.get_error_key(name)).value) for row, name in enumerate(names)}
        drawing = plots.pairs(entry.label, names, values, entry.number, names=('matching clean images',
                                                                               'shifted images'),
                              xlabel='top-1 error, %')
        yield Figure(f'shifts_{index}_{make_slug(entry.label)}', f'{entry.label}: top-1 error in percent on shifted '
                     f'datasets and on the matching clean images. {format_sources(group.sources)}', drawing, tuple(
                         {'model': entry.label, 'shift': names[row], 'clean': clean, 'error': error}
                         for row, (clean, error) in values.items()))
