"""First and last section of the report: the main numbers of all models, and their provenance."""

import shlex
from collections.abc import Iterable, Mapping, Sequence

from pit_downstream.benchmarks import adversarial, coco_c, imagenet_c
from pit_downstream.benchmarks.adversarial import Rate
from pit_downstream.benchmarks.imagenet_c import ERROR
from pit_downstream.benchmarks.shifts import is_shift
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.records import MissingMeasurement
from pit_downstream.utils.registry import SECTIONS
from pit_downstream.utils.spec import Spec, format_value
from pit_downstream.report.attack_section import rate_cell, single_attacks, worst_cases
from pit_downstream.report.commands import tool_name
from pit_downstream.report.detection_section import kept_share
from pit_downstream.report.grids import variants
from pit_downstream.report.measured import Measured, ModelResults, sources
from pit_downstream.report.names import dataset_label
from pit_downstream.report.parts import MISSING, Cell, Part, Section, Sheet, missing, percent, format_count, words

USUAL = ('Linf 4/255', 'Linf 8/255')  # preferred in the headline, as in most papers
LIBRARIES = ('pit_downstream', 'torch', 'timm', 'mmdet')  # libraries whose versions are shown


@SECTIONS.register('headline')
def headline_section(measured: Measured) -> Section:
    """Build the section with one row per model and dataset."""
    classifiers, detectors = ([one for one in measured.ones if kind(one)] for kind in
                              (lambda one: one.classifies and not is_shift(one.table.dataset),
                               lambda one: one.detects))
    parts: list[Part] = [*([_classifiers(measured, classifiers)] if classifiers else []),
                         *([_detectors(detectors)] if detectors else [])]
    lead = ('In per cent, with 95 % intervals where a number is a rate of images. What was not measured is a dash, and '
            'listed at the end with the command that measures it.')
    return Section('headline', 'At a glance', lead, tuple(parts))


@SECTIONS.register('provenance')
def provenance_section(measured: Measured) -> Section:
    """Build the section on the measured datasets and the runs that measured them."""
    rows = tuple((one.cell, words(one.model), words(one.table.dataset), format_count(one.key[2]),
                  format_count(max(record.count for record in one.table.records)),
                  format_count(len(one.conditions())), format_count(len(one.table)),
                  words(', '.join(f'{path.parent.name}/{path.name}' for path in one.files)))
                 for one in measured.ones)
    runs = tuple((words(run.started.replace('T', ' ')[:16]), words(run.device), words(run.commit or MISSING),
                  words(', '.join(f'{name} {run.versions[name]}' for name in LIBRARIES if name in run.versions)),
                  words(_command(run.argv))) for run in measured.kept.runs if run.argv)
    sheets = []
    if rows:
        sheets.append(Sheet('records', 'Models and datasets, with the names of the records.', (
            'model', 'in the records', 'data', 'seed', 'images', 'conditions', 'records', 'files'), rows))
    if runs:
        columns = ('started, UTC', 'device', 'commit', 'versions', 'command')
        sheets.append(Sheet('runs', 'The runs that measured it, from runs.jsonl beside the records.', columns, runs,
                            folded=True))
    return Section('provenance', 'Provenance', 'Where every number comes from: one line of a results.jsonl each.',
                   tuple(sheets))


def summary_line(measured: Measured) -> str:
    """Return a line such as '2 models, 3 datasets, 804 records'."""
    counts = {'model': len({one.number for one in measured.ones}),
              'dataset': len({dataset_label(one.table.dataset) for one in measured.ones}),
              'record': sum(len(one.table) for one in measured.ones), 'training log': len(measured.kept.logs),
              'benchmark': len(measured.kept.speeds),
              'picture': sum(map(len, measured.kept.pictures.values()))}
    return ', '.join(f'{count} {noun}{"s" * (count != 1)}' for noun, count in counts.items() if count)


def _command(argv: Sequence[str]) -> str:
    tool, *rest = argv
    return shlex.join(['pit-downstream', tool_name(tool).replace('_', '-'), *rest])


def _classifiers(measured: Measured, ones: Iterable[ModelResults]) -> Sheet:
    ones, rows = list(ones), []
    for one in ones:
        clean = rate_cell(adversarial.get_accuracy(one.table, CLEAN)) if (CLEAN, ERROR) in one.table else missing()
        attack, robust = _quoted(worst_cases(measured, one), single_attacks(one))
        rows.append((one.cell, words(dataset_label(one.table.dataset)), _count(one, ERROR), clean, *_corrupted(one),
                     robust, words(attack)))
    columns = ('model', 'data', 'n', 'clean accuracy', 'accuracy, corrupted', 'mCE', 'relative mCE', 'robust accuracy',
               'robust against')
    caption = ("n: images behind every number. mCE is relative to AlexNet's errors on ImageNet, and there for ImageNet "
               'alone; it and the accuracy under corruption need all 75 conditions. Shifted datasets have a section of '
               f'their own. {sources(ones)}')
    return Sheet('classifiers', caption, columns, tuple(rows))


def _count(one: ModelResults, metric: str) -> Cell:
    """Return the number of images behind a metric, the smallest if it varies."""
    return format_count(min(record.count for record in one.table.records if record.metric == metric))


def _corrupted(one: ModelResults) -> list[Cell]:
    """Return the cells of the first complete corruption variant."""
    for variant in variants(one):
        try:
            summary = imagenet_c.summarize(one.table, **variant)
            ends = imagenet_c.compute_intervals(one.table, **variant)
        except MissingMeasurement:
            continue
        return [percent(summary.get(name), ends.get(name)) for name in ('mean_accuracy', 'mCE', 'relative_mCE')]
    return [missing()] * 3


def _quoted(worst: Mapping[Condition, Rate], single: Mapping[Condition, Rate]) -> tuple[str, Cell]:
    """Return the headline robustness: Linf at 4/255 or 8/255 if available, otherwise the largest epsilon.

    It is the worst case over the attacks or, without verdicts by image, the strongest attack.
    """
    still = {condition: rate for condition, rate in single.items() if condition.corruption is None}
    if not still:
        return MISSING, missing()
    sizes = {_size(condition): condition for condition in still}
    largest = max(still)
    chosen = next((sizes[size] for size in USUAL if size in sizes), largest)
    if chosen in worst:
        return f'the worst case, {_size(chosen)}', rate_cell(worst[chosen])
    return f'the strongest attack, {_size(chosen)}', rate_cell(still[chosen])


def _size(condition: Condition) -> str:
    """Return a label such as 'Linf 8/255', or 'patch' for a patch."""
    attack = condition.attack or Spec('worst_case')
    norm, epsilon = attack.get('norm', 'Linf'), attack.get('epsilon')
    return f'{norm} {format_value(epsilon)}' if epsilon is not None else str(norm)


def _detectors(ones: Iterable[ModelResults]) -> Sheet:
    ones, rows = list(ones), []
    for one in ones:
        metric = coco_c.list_measured_metrics(one.table)[0]
        summary = kept_share(one, **next(iter(variants(one)), {}))
        rows.append((one.cell, words(dataset_label(one.table.dataset)), _count(one, metric), words(metric),
                     *(percent(summary.get(f'{name}({metric})')) for name in ('P', 'mPC', 'rPC'))))
    caption = f'n: images. P: clean; mPC: mean over 75 corrupted conditions; rPC: mPC / P. {sources(ones)}'
    return Sheet('detectors', caption, ('model', 'data', 'n', 'metric', 'P', 'mPC', 'rPC'), tuple(rows))
