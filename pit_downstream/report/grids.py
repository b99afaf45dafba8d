"""Corruption-by-severity grids: results on the same images, for every variant of the corruptions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from pit_downstream.benchmarks import imagenet_c
from pit_downstream.benchmarks.imagenet_c import SEVERITIES
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.records import Key
from pit_downstream.utils.spec import Spec, Value, format_value
from pit_downstream.report import plots as charts
from pit_downstream.report.measured import Measured, ModelResults, sources
from pit_downstream.report.names import dataset_label
from pit_downstream.report.parts import Figure, readable, slug

Variant = dict[str, Value]


@dataclass(frozen=True)
class Grid:
    """Corruption-by-severity grid. name: of the images. short: file name suffix. variant: arguments except severity."""

    name: str
    short: str
    ones: tuple[ModelResults, ...]
    variant: Variant

    @property
    def said(self) -> str:
        """Return ' (jpeg=85)' for captions, or '' without a variant."""
        words = ', '.join(f'{key}={format_value(value)}' for key, value in self.variant.items())
        return f' ({words})' if words else ''

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the corruptions with a number in any of the tables, in the order of the benchmark."""
        held = dict.fromkeys(spec.name for one in self.ones for spec in severity_specs(one)
                             if Condition(spec) in imagenet_c.list_conditions([spec.name], SEVERITIES, **self.variant))
        known = [name for name in (*imagenet_c.CORRUPTIONS, *imagenet_c.HOLD_OUT) if name in held]
        return *known, *(name for name in held if name not in known)

    def cells(self, one: ModelResults, metric: str) -> dict[tuple[int, int], Key]:
        """Return the keys of the available numbers by (row, column)."""
        keys = {(row, column): (imagenet_c.make_condition(name, severity, **self.variant), metric)
                for row, name in enumerate(self.names) for column, severity in enumerate(SEVERITIES)}
        return {place: key for place, key in keys.items() if key in one.table}


def grids(measured: Measured, kind: Callable[[ModelResults], bool]) -> Iterator[Grid]:
    """Yield one grid per set of images and corruption variant, for the tables that satisfy `kind`."""
    for group in measured.groups(lambda one: kind(one) and one.holds(corrupts)):
        every = [way for one in group.ones for way in variants(one)]
        ways = [way for index, way in enumerate(every) if way not in every[:index]]
        for index, way in enumerate(ways, 1):
            short = group.short + (f'_way{index}' if len(ways) > 1 else '')
            yield Grid(group.name, short, tuple(one for one in group.ones if way in variants(one)), way)


def corrupts(condition: Condition) -> bool:
    """Return whether the condition is a corruption with a severity, without an attack."""
    return condition.attack is None and condition.corruption is not None and bool(condition.corruption.get('severity'))


def _corruption(key: Key) -> Spec | None:
    condition = key[0] if isinstance(key[0], Condition) else Condition.parse(key[0])
    return condition.corruption


def severity_specs(one: ModelResults) -> list[Spec]:
    """Return the corruptions with a severity in a table, without an attack."""
    return [condition.corruption for condition in one.conditions() if corrupts(condition) and condition.corruption]


def variants(one: ModelResults) -> list[Variant]:
    """Return the corruption arguments of a table besides severity: {}, {'jpeg': 85}, {'variant': 'hendrycks'} ...

    Only three corruptions carry variant='hendrycks'. The others belong to both variants.
    """
    specs = severity_specs(one)
    found: list[Variant] = []
    for base in dict.fromkeys(spec.without('severity', 'variant').kwargs for spec in specs):
        here = [spec for spec in specs if spec.without('severity', 'variant').kwargs == base]
        telling = [spec for spec in here if spec.name in imagenet_c.HENDRYCKS] or here
        ways = dict.fromkeys(spec.get('variant') for spec in telling)
        found += [dict(base) | ({'variant': way} if way else {}) for way in ways]
    return found


def lacking(measured: Measured, kind: Callable[[ModelResults], bool], has: Callable[[ModelResults], bool]
            ) -> list[ModelResults]:
    """Return one table of every model that satisfies `kind` and has no table that satisfies `has`."""
    having = {one.number for one in measured.ones if has(one)}
    first: dict[int, ModelResults] = {}
    for one in measured.ones:
        if kind(one) and one.number not in having:
            first.setdefault(one.number, one)
    return list(first.values())


def heat(grid: Grid, one: ModelResults, metric: str, name: str, *, noun: str = '', high: float = 1.) -> Figure:
    """Draw the heat map of one table. noun: name of the metric in the caption."""
    cells = grid.cells(one, metric)
    clean = f', clean {100 * one.table[CLEAN, metric]:.1f}' if (CLEAN, metric) in one.table else ''
    drawing = charts.heat_map(one.label + clean, list(map(readable, grid.names)), list(map(str, SEVERITIES)),
                              {place: one.table[key] for place, key in cells.items()}, high=high, xlabel='severity')
    points = tuple({'model': one.label, 'corruption': grid.names[row], 'severity': SEVERITIES[column],
                    metric: one.table[key]} for (row, column), key in cells.items())
    gaps = ' A dash was not measured.' if len(cells) < len(grid.names) * len(SEVERITIES) else ''
    return Figure(f'{name}_{slug(one.label)}', f'{one.label} on {dataset_label(one.table.dataset)}: {noun or metric}'
                  f'{grid.said} in per cent by corruption and severity.{gaps} {sources([one])}', drawing, points)


def what(one: ModelResults, keys: Sequence[Key], noun: str, therefore: str) -> str:
    """Describe a gap in words. keys: the missing measurements."""
    specs = [_corruption(key) for key in keys]
    names = list(dict.fromkeys(spec.name if spec else 'clean' for spec in specs))
    few = ', '.join(map(readable, names[:4])) + (f' and {len(names) - 4} more' if len(names) > 4 else '')
    return (f'{one.label} on {dataset_label(one.table.dataset)}: no {noun} under {len(keys)} '
            f'condition{"s" * (len(keys) > 1)} ({few}), hence {therefore}')


def choosing(keys: Sequence[Key]) -> list[str]:
    """Return the flags that select the corruptions and severities of `keys`."""
    specs = [spec for key in keys if (spec := _corruption(key))]
    return ['--corruptions', *dict.fromkeys(spec.name for spec in specs), '--severities',
            *sorted({str(spec.get('severity')) for spec in specs})] if specs else []
