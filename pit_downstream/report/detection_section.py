"""Report sections on detectors: AP under the corruptions of COCO-C, and under attack."""

from collections.abc import Iterable, Sequence

from pit_downstream.benchmarks import adversarial, coco_c, detection_attacks, imagenet_c
from pit_downstream.benchmarks.imagenet_c import SEVERITIES
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.records import MissingMeasurement
from pit_downstream.utils.registry import SECTIONS
from pit_downstream.report import plots as charts
from pit_downstream.report.attack_section import attack_cells, attacked, axis, ticks
from pit_downstream.report.commands import detector_command
from pit_downstream.report.grids import Grid, choosing, corrupts, grids, heat, lacking, what
from pit_downstream.report.measured import Group, Measured, ModelResults, sources
from pit_downstream.report.parts import Figure, Gap, Heading, Part, Section, Sheet, percent, readable, words

CHIEF = ('AP', 'mask_AP')  # detection metrics that are drawn
SHOWN = ('AP', 'AP50', 'AP75', 'mask_AP')  # metrics in the table of attacks


@SECTIONS.register('coco_c')
def coco_c_section(measured: Measured) -> Section:
    """Build the section on AP by corruption and severity, with P, mPC and rPC."""
    parts: list[Part] = []
    gaps: list[Gap] = []
    for grid in grids(measured, lambda one: one.detects):
        parts.append(Heading(f'{grid.name}{grid.said}'))
        for metric in _chief(grid.ones):
            have = [one for one in grid.ones if metric in one.metrics]
            top = max((one.table[key] for one in have for key in grid.cells(one, metric).values()), default=0) or 1
            parts += [heat(grid, one, metric, f'{metric}{grid.short}', high=top) for one in have]
            parts += _means(measured, grid, have, metric)
        parts.append(_kept_share(grid))
        gaps += _gaps(measured, grid)
    gaps += [Gap(f'{one.label}: no AP under the corruptions of COCO-C',
                 detector_command(measured.kept, 'eval_coco_c.py', one.model))
             for one in lacking(measured, lambda one: one.detects, lambda one: one.holds(corrupts))]
    lead = ('AP in per cent under fifteen corruptions at five severities (Michaelis et al. 2019); the deeper the '
            'color, the higher. P is AP on clean images, mPC the mean over all 75, rPC = mPC / P.')
    return Section('coco_c', 'COCO-C', lead, tuple(parts), tuple(gaps))


@SECTIONS.register('detection_attacks')
def detection_section(measured: Measured) -> Section:
    """Build the section on AP of detectors over epsilon."""
    parts: list[Part] = []
    for group in measured.groups(lambda one: one.detects and one.holds(attacked)):
        parts.append(Heading(group.name))
        for metric in _chief(group.ones):
            parts += _curves(measured, group, metric)
        parts.append(_attacks(group))
    gaps = [Gap(f'{one.label}: no AP under attack', detector_command(measured.kept, 'eval_adversarial.py', one.model))
            for one in lacking(measured, lambda one: one.detects, lambda one: one.holds(attacked))]
    lead = ('AP of detectors, in per cent, on the same images without and with an attack. AP is no rate of images: '
            'it has no interval here.')
    return Section('detection_attacks', 'Attacked detectors', lead, tuple(parts), tuple(gaps))


def _chief(ones: Sequence[ModelResults]) -> list[str]:
    """Return the metrics to draw: AP of boxes and masks, or else the first available metric."""
    held = list(dict.fromkeys(metric for one in ones for metric in coco_c.list_measured_metrics(one.table)))
    return [metric for metric in CHIEF if metric in held] or held[:1]


def _means(measured: Measured, grid: Grid, ones: Sequence[ModelResults], metric: str) -> list[Part]:
    """Build the mean of a metric over the five severities, by corruption, for complete rows only."""
    rows = {one: {name: coco_c.compute_mpc(one.table, metric, [name], **grid.variant)
                  for name in grid.names if all((imagenet_c.make_condition(name, severity, **grid.variant), metric)
                                                in one.table for severity in SEVERITIES)} for one in ones}
    shown = [name for name in grid.names if any(name in row for row in rows.values())]
    if not shown:
        return []
    name = f'mean_{metric}{grid.short}'
    caption = f'Mean {metric} over the five severities{grid.said} on {grid.name}, in per cent. {sources(ones)}'
    drawing = charts.bars(
        f'mean {metric} by corruption', list(map(readable, shown)),
        {one.label: {shown.index(name): (100 * value, None, None) for name, value in row.items()}
         for one, row in rows.items()}, measured.numbers, xlabel=f'{metric}, %')
    points = tuple({'model': one.label, 'corruption': name, metric: value} for one, row in rows.items()
                   for name, value in row.items())
    body = tuple((words(readable(name)), *(percent(rows[one].get(name)) for one in ones)) for name in shown)
    return [Figure(name, caption, drawing, points),
            Sheet(name, caption, ('corruption', *(one.label for one in ones)), body, folded=True)]


def _kept_share(grid: Grid) -> Sheet:
    """Build a table of P, mPC and rPC of every metric. Gaps show a dash."""
    rows = []
    for one in grid.ones:
        summary = kept_share(one, **grid.variant)
        rows += [(one.cell, words(metric), *(percent(summary.get(f'{name}({metric})')) for name in
                                             ('P', 'mPC', 'rPC')))
                 for metric in coco_c.list_measured_metrics(one.table)]
    caption = (f'Detectors on {grid.name}{grid.said}, in per cent; AP is no rate of images, so it has no interval '
               f'here. {sources(grid.ones)}')
    return Sheet(f'rpc{grid.short}', caption, ('model', 'metric', 'P', 'mPC', 'rPC'), tuple(rows))


def kept_share(one: ModelResults, **variant) -> dict[str, float]:
    """Return the summary of COCO-C, or over a gap P alone, if measured."""
    try:
        return coco_c.summarize(one.table, **variant)
    except MissingMeasurement:
        return {f'P({metric})': one.table[CLEAN, metric] for metric in coco_c.list_measured_metrics(one.table)
                if (CLEAN, metric) in one.table}


def _gaps(measured: Measured, grid: Grid) -> Iterable[Gap]:
    for one in grid.ones:
        metric = _chief([one])[0]
        keys = [(condition, metric) for condition in coco_c.list_conditions(**grid.variant)
                if (condition, metric) not in one.table]
        if keys:
            yield Gap(what(one, keys, metric, 'no mPC and rPC'),
                      detector_command(measured.kept, 'eval_coco_c.py', one.model, *choosing(keys)))


def _curves(measured: Measured, group: Group, metric: str) -> Iterable[Figure]:
    """Yield a panel per attack, with a line per detector."""
    lines: dict[str, dict[ModelResults, list[tuple[float, float]]]] = {}
    for one in group.ones:
        for rest, points in detection_attacks.group_curves(one.table, metric).items():
            still = Condition(Condition.parse(rest).corruption)
            start = [(0., one.table[still, metric])] if (still, metric) in one.table else []
            lines.setdefault(rest, {})[one] = [*start, *points]
    for index, (rest, series) in enumerate(lines.items(), 1):
        xs = sorted({x for points in series.values() for x, _ in points})
        attack, norm, _ = adversarial.describe_condition(Condition.parse(rest))
        drawn = {one.label: [(x, value, None, None) for x, value in points] for one, points in series.items()}
        drawing = charts.curves(f'{attack}, {norm}', drawn, measured.numbers, xlabel=axis('epsilon', xs),
                                ylabel=f'{metric}, %', ticks=ticks(xs))
        shown = tuple({'model': one.label, 'attack': rest, 'epsilon': x, metric: value}
                      for one, points in series.items() for x, value in points)
        yield Figure(f'{metric}_over_epsilon{group.short}_{index}', f'{metric} under {attack} ({norm}) on '
                     f'{group.name}, over epsilon. {sources(list(series))}', drawing, shown)


def _attacks(group: Group) -> Sheet:
    metrics = [name for name in SHOWN if any(name in one.metrics for one in group.ones)] or _chief(group.ones)
    rows = []
    for one in group.ones:
        attacks = [condition for condition in one.conditions() if attacked(condition)]
        still = dict.fromkeys(Condition(condition.corruption) for condition in attacks)
        rows += [(one.cell, *attack_cells(condition),
                  *(percent(one.table[condition, metric] if (condition, metric) in one.table else None)
                    for metric in metrics)) for condition in (*still, *attacks)]
    caption = f'Detectors on {group.name}, in per cent. {sources(group.ones)}'
    return Sheet(f'detection_attacks{group.short}', caption, ('model', 'attack', 'norm', 'epsilon', *metrics),
                 tuple(rows))
