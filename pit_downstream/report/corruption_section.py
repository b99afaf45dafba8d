"""Report section on the corruptions of ImageNet-C: errors by severity, and CE against a reference."""

import math
from collections.abc import Iterable, Mapping

from pit_downstream.benchmarks import imagenet_c
from pit_downstream.benchmarks.base import compute_wilson_interval
from pit_downstream.benchmarks.imagenet_c import ERROR, SEVERITIES
from pit_downstream.results.condition import CLEAN
from pit_downstream.results.records import MissingMeasurement
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import SECTIONS
from pit_downstream.report import plots as charts
from pit_downstream.report.commands import classifier_command
from pit_downstream.report.grids import Grid, Variant, corrupts, grids, heat, lacking, what
from pit_downstream.report.measured import ALEXNET, Measured, ModelResults, sources
from pit_downstream.report.parts import (
    Cell,
    Figure,
    Gap,
    Heading,
    Part,
    Section,
    Sheet,
    missing,
    percent,
    readable,
    format_count,
    words,
)

Ratio = tuple[float, float | None, float | None]  # CE and the ends of its interval, if any


@SECTIONS.register('imagenet_c')
def imagenet_c_section(measured: Measured) -> Section:
    """Build the section on top-1 errors by corruption and severity, and CE against the reference."""
    parts: list[Part] = []
    gaps: list[Gap] = []
    for grid in grids(measured, lambda one: one.classifies):
        parts.append(Heading(f'{grid.name}{grid.said}'))
        parts += [heat(grid, one, ERROR, f'errors{grid.short}', noun='top-1 error') for one in grid.ones]
        parts += [*_ce(measured, grid), _errors(grid)]
        gaps += _gaps(measured, grid)
    gaps += [Gap(f'{one.label}: no errors under the corruptions of ImageNet-C',
                 classifier_command(measured.kept, 'eval_imagenet_c.py', one.model))
             for one in lacking(measured, lambda one: one.classifies, lambda one: one.holds(corrupts, ERROR))]
    lead = ('Top-1 error in per cent under fifteen corruptions at five severities (Hendrycks & Dietterich 2019); the '
            'deeper the color, the more errors. CE is the error summed over the severities, divided by that of the '
            'reference.')
    return Section('imagenet_c', 'ImageNet-C', lead, tuple(parts), tuple(gaps))


def _errors(grid: Grid) -> Sheet:
    """Build a table with a row per model and corruption."""
    rows = []
    for one in grid.ones:
        for name in grid.names:
            keys = [(imagenet_c.make_condition(name, severity, **grid.variant), ERROR) for severity in SEVERITIES]
            records = [one.table.record(key) if key in one.table else None for key in keys]
            held = [record for record in records if record is not None]
            mean = math.fsum(record.value for record in held) / len(held) if len(held) == len(keys) else None
            rows.append((one.cell, words(readable(name)), *(
                missing() if record is None
                else percent(record.value, compute_wilson_interval(record.value, record.count))
                for record in records), percent(mean),
                format_count(min(record.count for record in held)) if held else missing()))
    caption = (f'Top-1 error{grid.said} on {grid.name}, in per cent with 95 % intervals (Wilson); n: images. The mean '
               f'over the severities is there only where all five were measured. {sources(grid.ones)}')
    columns = ('model', 'corruption', *(f'severity {severity}' for severity in SEVERITIES), 'mean', 'n')
    return Sheet(f'errors{grid.short}', caption, columns, tuple(rows), folded=True)


def _ce(measured: Measured, grid: Grid) -> list[Part]:
    """Build CE per corruption, where defined, and mCE against a model on the same images or, on ImageNet, AlexNet."""
    base = next((one for one in grid.ones if one.label == measured.reference), None)
    if base is None and not any(map(_has_alexnet, grid.ones)):
        return []
    rows = {one: {name: ratio for name in grid.names if (ratio := _ratio(one, base, name, grid.variant))}
            for one in grid.ones}
    if not any(rows.values()):
        return []
    known = {*imagenet_c.CORRUPTIONS, *imagenet_c.HOLD_OUT}.union(*rows.values())
    shown = [name for name in grid.names if name in known]  # gaps show a dash
    against = base.label if base else ALEXNET
    caption = (f'CE in per cent of {against}{grid.said}, on {grid.name}: below 100 is better than {against}.'
               f'{"" if base else " Lines are 95 % intervals."} {sources(grid.ones)}')
    body = [(words(readable(name)), *(_cell(rows[one].get(name)) for one in grid.ones)) for name in shown]
    body.append((words('mCE of the fifteen'), *(_mce(one, base, grid.variant) for one in grid.ones)))
    columns = ('corruption', *(one.label for one in grid.ones))
    sheet = Sheet(f'ce{grid.short}', caption, columns, tuple(body), folded=True)
    drawn = {one: ratios for one, ratios in rows.items() if one is not base and ratios}
    return [*([_bars(measured, grid, drawn, shown, caption, against)] if drawn else []), sheet]


def _bars(measured: Measured, grid: Grid, rows: Mapping[ModelResults, Mapping[str, Ratio]], shown: list[str],
          caption: str, against: str) -> Figure:
    found = {one.label: {shown.index(name): tuple(None if end is None else 100 * end for end in ratio)
                         for name, ratio in ratios.items()} for one, ratios in rows.items()}
    drawing = charts.bars(f'CE against {against}', list(map(readable, shown)), found, measured.numbers,
                          xlabel=f'CE, % of {against}', line=100)
    points = tuple({'model': one.label, 'corruption': name, 'reference': against, 'value': ratio[0], 'low': ratio[1],
                    'high': ratio[2]} for one, ratios in rows.items() for name, ratio in ratios.items())
    return Figure(f'ce{grid.short}', caption, drawing, points)


def _has_alexnet(one: ModelResults) -> bool:
    return imagenet_c.has_alexnet(one.table.dataset)


def _ratio(one: ModelResults, base: ModelResults | None, name: str, variant: Variant) -> Ratio | None:
    """Return CE with its interval, or relative to `base` the quotient without interval. Return None over a gap."""
    try:
        ce = imagenet_c.compute_ce(one.table, name, **variant)
        if base is None:
            return ce, *imagenet_c.compute_ce_interval(one.table, name, **variant)
        return ce / imagenet_c.compute_ce(base.table, name, **variant), None, None
    except (InputError, ZeroDivisionError):  # missing severity, unknown AlexNet error, or perfect reference
        return None


def _cell(ratio: Ratio | None) -> Cell:
    return missing() if ratio is None else percent(ratio[0], ratio[1:])


def _mce(one: ModelResults, base: ModelResults | None, variant: Variant) -> Cell:
    """Return mCE over all fifteen corruptions, or a dash."""
    try:
        if base is None:
            return percent(imagenet_c.summarize(one.table, **variant)['mCE'],
                           imagenet_c.compute_intervals(one.table, **variant)['mCE'])
    except MissingMeasurement:
        return missing()
    ratios = [ratio[0] for name in imagenet_c.CORRUPTIONS if (ratio := _ratio(one, base, name, variant))]
    return percent(math.fsum(ratios) / len(ratios)) if len(ratios) == len(imagenet_c.CORRUPTIONS) else missing()


def _gaps(measured: Measured, grid: Grid) -> Iterable[Gap]:
    """Yield the missing measurements that prevent an mCE."""
    for one in grid.ones:
        keys = [(condition, ERROR) for condition in imagenet_c.list_conditions(**grid.variant)
                if (condition, ERROR) not in one.table]
        if keys:
            run = classifier_command(measured.kept, 'eval_imagenet_c.py', one.model)
            lost = ('no mean over all 75' if not _has_alexnet(one) else
                    'no relative mCE' if [key[0] for key in keys] == [CLEAN] else 'no mCE')
            yield Gap(what(one, keys, 'errors', lost), imagenet_c.build_command(one.table, keys, run=run))
