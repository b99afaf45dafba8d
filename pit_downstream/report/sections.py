"""Sections of a report: of every benchmark from its layout, the headline, speed, images and provenance."""

import difflib
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pit_downstream.benchmarks import adversarial
from pit_downstream.benchmarks.coco_c import MAIN
from pit_downstream.benchmarks.shifts import is_shift
from pit_downstream.results.commands import get_tool
from pit_downstream.results.condition import CLEAN
from pit_downstream.results.intervals import Estimate
from pit_downstream.results.labels import label_dataset, label_models
from pit_downstream.results.layout import (
    RATES,
    average,
    choose_metric,
    is_fraction,
    list_columns,
    list_metrics,
    make_cell,
    make_grid,
)
from pit_downstream.results.records import MissingMeasurement, get_model_key
from pit_downstream.results.results import Gap
from pit_downstream.results.tables import MISSING, Cell, Sheet, count, missing, number, rate, words
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import BENCHMARKS, SECTIONS
from pit_downstream.report import attacks, attention, plots, training
from pit_downstream.report.corruptions import draw_ce, draw_means, draw_shifts, draw_strengths
from pit_downstream.report.data import ALEXNET, Group, ReportData
from pit_downstream.report.differences import build_differences
from pit_downstream.report.inputs import FORMATS, Inputs, read_inputs
from pit_downstream.report.models import ERROR, ModelResults, format_sources
from pit_downstream.report.parts import Figure, Heading, Image, Part, Report, Section, finish_section, make_slug

TITLE = 'Robustness report'
BEFORE = ('headline', 'differences', 'imagenet_c', 'occlusion', 'coco_c', 'adversarial', 'transfer',
          'detection_attacks', 'shifts', 'attention')
AFTER = ('training', 'speed', 'images', 'provenance')
TITLES = {'occlusion': 'Strengths', 'adversarial': 'Attacks'}
USUAL = ('Linf 4/255', 'Linf 8/255')  # preferred in the headline, as in most papers
LIBRARIES = ('pit_downstream', 'torch', 'timm', 'mmdet')  # libraries whose versions are shown
MAX_IMAGES, MAX_BYTES = 6, 3 << 20  # images per folder, and size of each: the page embeds all of them
IMAGE_COMMANDS = (('corrupted images', 'pit-downstream show-corruptions PHOTO.jpg --output DIR/corruptions.png'),
                  ('detections', 'pit-downstream show-detections --model CONFIG --weights CHECKPOINT --output '
                                 'DIR/detections.png'))
SPEED_COLUMNS = ('benchmark', 'case', 'setting', 'metric', 'ours', 'peer', "the peer's", 'ratio', 'device', 'threads',
                 'commit')

SECTIONS.register('differences')(build_differences)
SECTIONS.register('transfer')(attacks.build_transfer)
SECTIONS.register('training')(training.build_training)


def make_report(paths: Iterable[str | Path], *, reference: str = ALEXNET, title: str = TITLE,
                exclude: Iterable[str | Path] = ()) -> Report:
    """Build the report of files and folders.

    Args:
        reference: Model that CE and differences compare with.
        exclude: Output folders, whose images are figures of an earlier report.

    Raises:
        InputError: There is nothing to report, or the reference has no results.
    """
    return build_report(read_inputs(paths, exclude=exclude), reference=reference, title=title)


def build_report(inputs: Inputs, *, reference: str = ALEXNET, title: str = TITLE) -> Report:
    """Build the report of some inputs. Custom benchmarks come after the others, custom sections at the end."""
    data = ReportData(inputs)
    data = replace(data, reference=_choose_reference(data, reference))
    custom = [name for name in BENCHMARKS if name not in BEFORE]
    names = dict.fromkeys((*BEFORE, *custom, *AFTER, *SECTIONS))
    sections = [finish_section(SECTIONS[name](data) if name in SECTIONS else build_section(data, name))
                for name in names]
    return Report(title, _describe_contents(data), tuple(section for section in sections if section.parts
                                                         or section.gaps),
                  tuple(dict.fromkeys(label_models(model for model, _, _ in inputs.tables).values())))


def build_section(data: ReportData, name: str) -> Section:
    """Build the section of a benchmark: figures, tables with all models, and gaps with commands."""
    cls = BENCHMARKS[name]
    parts: list[Part] = []
    gaps: list[Gap] = []
    draw = {'imagenet_c': draw_ce, 'occlusion': draw_strengths, 'coco_c': draw_means, 'shifts': draw_shifts,
            'adversarial': attacks.draw_attacks, 'detection_attacks': attacks.draw_detection_attacks,
            'attention': attention.draw_attention}.get(name)
    for group in data.groups[name]:
        parts.append(Heading(group.name))
        if draw is None or name in ('imagenet_c', 'coco_c'):
            parts += draw_layout(data, group)
        parts += draw(data, group) if draw else []
        parts += merge_sheets(group)
        parts += [compare_models(group)] if len(group.entries) > 1 and name not in ('attention', 'shifts') else []
        gaps += [Gap(': '.join(filter(None, (f'{entry.label} on {group.name}' if group.name else entry.label,
                                             gap.what))), gap.command)
                 for entry, results in group.pairs for gap in results.gaps]
    for entry in data.list_models_without(name):
        results = data.make_results(cls(), entry)
        gaps.append(Gap(f'{entry.label}: {cls.title or name} not measured', cls().build_command(results, [])))
    return Section(name, TITLES.get(name, cls.title or name), cls.about, tuple(parts), tuple(gaps))


def draw_layout(data: ReportData, group: Group) -> Iterator[Figure]:
    """Yield figures in the layout of a benchmark: a heat map per model or, without columns, bars of all models."""
    layout = group.benchmark.layout
    for metric in choose_metrics(group):
        grids = {entry: make_grid(results, layout, metric) for entry, results in group.pairs}
        records = [record for grid in grids.values() for record in grid.values()]
        rows = list(dict.fromkeys(row for grid in grids.values() for row, column in grid if column))
        columns = list_columns(place for grid in grids.values() for place in grid)
        name = f'{group.benchmark.name}_{metric}{group.suffix}'
        subject = f'{group.name}: {metric.replace("_", " ")}{" in percent" if is_fraction(metric) else ""}'
        if not layout.columns:
            scale = 100 if is_fraction(metric) else 1
            values = {entry.label: {rows.index(row): tuple(
                None if end is None else scale * end for end in _get_ends(metric, record))
                for (row, _), record in grid.items()} for entry, grid in grids.items()}
            drawing = plots.bars(group.benchmark.title or group.benchmark.name, list(map(make_readable, rows)), values,
                                 data.numbers, xlabel=metric + (', %' if is_fraction(metric) else ''))
            points = [{'model': entry.label, layout.rows: row, metric: record.value}
                      for entry, grid in grids.items() for (row, _), record in grid.items()]
            yield Figure(name, f'{subject} by {layout.rows}. {format_sources(group.entries)}', drawing, tuple(points))
            continue
        high = 1. if metric.endswith(RATES) else max((record.value for record in records), default=1.) or 1.
        for entry, grid in grids.items():
            if not grid or not is_fraction(metric):
                continue
            cells = {(rows.index(row), columns.index(column)): record.value for (row, column), record in grid.items()
                     if column}
            clean = next((f', {row} {100 * record.value:.1f}' for (row, column), record in grid.items()
                          if not column), '')
            drawing = plots.heat_map(entry.label + clean, list(map(make_readable, rows)), columns, cells, high=high,
                                     xlabel=layout.columns)
            points = [{'model': entry.label, layout.rows: row, layout.columns: column, metric: record.value}
                      for (row, column), record in grid.items() if column]
            gaps = ' A dash was not measured.' if len(cells) < len(rows) * len(columns) else ''
            yield Figure(f'{name}_{make_slug(entry.label)}', f'{entry.label} on {subject} by {layout.rows} and '
                         f'{layout.columns}.{gaps} {format_sources([entry])}', drawing, tuple(points))


def choose_metrics(group: Group) -> list[str]:
    """Return the metrics to draw: that of the layout, AP of boxes and masks, or else the first available metric."""
    layout = group.benchmark.layout
    measured = list(dict.fromkeys(name for results in group.results for name in list_metrics(results.table)))
    if layout.every_metric:
        return measured
    main = [name for name in measured if name == layout.value or layout.value in MAIN and name in MAIN]
    return main or measured[:1]


def merge_sheets(group: Group) -> Iterator[Sheet]:
    """Yield the tables of a benchmark with the rows of all models. Rates by row and column have their intervals."""
    layout, name = group.benchmark.layout, group.benchmark.name
    merged: dict[str, list[tuple[ModelResults, Sheet]]] = {}
    for entry, results in group.pairs:
        for sheet in results.sheets:
            caption = sheet.caption
            if len(group.entries) > 1:
                caption = caption.replace(results.subject, f'the models on {group.name}').replace(
                    f'of {results.label} ', 'of the models ')
            merged.setdefault(sheet.name, []).append((entry, replace(sheet, caption=caption)))
    for sheet_name, pairs in merged.items():
        metric = sheet_name.removeprefix(f'{name}_')
        if layout.columns and metric in choose_metrics(group) and metric.endswith(RATES):
            yield tabulate_grid(group, metric)
            continue
        columns = tuple(dict.fromkeys(title for _, sheet in pairs for title in sheet.columns))
        rows = [(entry.cell, *(dict(zip(sheet.columns, row, strict=True)).get(title, words('')) for title in columns))
                for entry, sheet in pairs for row in sheet.rows]
        yield Sheet(sheet_name + group.suffix, f'{pairs[0][1].caption} {format_sources(group.sources)}',
                    ('model', *columns), tuple(rows), folded=len(rows) > 12)


def tabulate_grid(group: Group, metric: str) -> Sheet:
    """Return a table of rates with a row per model and row of the layout: intervals, mean, and number of images."""
    layout = group.benchmark.layout
    grids = [make_grid(results, layout, metric) for results in group.results]
    columns = list_columns(place for grid in grids for place in grid)
    rows = []
    for entry, grid in zip(group.entries, grids, strict=True):
        for row in dict.fromkeys(row for row, _ in grid):
            records = [grid.get((row, column)) for column in columns]
            single = grid.get((row, ''))  # such as clean
            known = [record for record in [*records, single] if record is not None]
            mean = single.value if single else average([record and record.value for record in records])
            cells = [words('') if single else missing() if record is None else rate(
                Estimate.of_rate(record.value, record.count)) for record in records]
            rows.append((entry.cell, words(make_readable(row)), *cells, *([rate(mean)] if layout.mean else []),
                         count(min(record.count for record in known))))
    caption = (f'{metric} on {group.name}, in percent with 95 % intervals (Wilson); n: images. A mean is over measured '
               f'numbers only where all were measured. {format_sources(group.entries)}')
    titles = (f'{layout.columns} {column}' for column in columns)
    return Sheet(f'{group.benchmark.name}_{metric}{group.suffix}', caption, (
        'model', layout.rows, *titles, *(['mean'] if layout.mean else []), 'n'), tuple(rows), folded=True)


def compare_models(group: Group) -> Sheet:
    """Return the table with a column per model, the best number of a row in bold."""
    sheet = group.benchmark.compare_models(group.results)
    return replace(sheet, name=sheet.name + group.suffix, folded=True, columns=(
        sheet.columns[0], *(entry.label for entry in group.entries)),
        caption=f'Models side by side. {sheet.caption} {format_sources(group.entries)}')


def make_readable(name: str) -> str:
    return name.replace('_', ' ')


def _get_ends(metric: str, record) -> tuple[float, float | None, float | None]:
    if not metric.endswith(RATES):
        return record.value, None, None
    estimate = Estimate.of_rate(record.value, record.count)
    return estimate.value, estimate.low, estimate.high


@SECTIONS.register('headline')
def build_headline(data: ReportData) -> Section:
    """Build the section with one row per model and dataset, and the summaries of custom benchmarks."""
    classifiers = [entry for entry in data.entries if ERROR in entry.metrics and not is_shift(entry.dataset)]
    detectors = [entry for entry in data.entries if entry.task == 'detector']
    parts: list[Part] = [_tabulate_classifiers(data, classifiers), _tabulate_detectors(data, detectors)]
    rows = []
    for name in (name for name in BENCHMARKS if name not in BEFORE):
        for group in data.groups[name]:
            rows += [(entry.cell, words(group.name), words(group.benchmark.title or name), words(make_readable(title)),
                      make_cell(title, estimate)) for entry, results in group.pairs
                     for title, estimate in group.benchmark.select_headline(results).items()]
    parts.append(Sheet('summaries', 'Summaries of custom benchmarks.', ('model', 'data', 'benchmark', 'summary',
                                                                        'value'), tuple(rows)))
    lead = ('In percent, with 95 % intervals where a number is a rate of images. A number that was not measured is a '
            'dash, and is listed at the end with the command that measures it.')
    return Section('headline', 'Overview', lead, tuple(parts))


def _tabulate_classifiers(data: ReportData, entries: Sequence[ModelResults]) -> Sheet:
    rows = []
    for entry in entries:
        records = [record for record in entry.table.records if record.metric == ERROR]
        clean = rate(adversarial.get_accuracy(entry.table, CLEAN)) if (CLEAN, ERROR) in entry.table else missing()
        rows.append((entry.cell, words(label_dataset(entry.dataset)), count(min(record.count for record in records)),
                     clean, *_summarize_corruptions(data, entry), *_summarize_attacks(data, entry)))
    columns = ('model', 'data', 'n', 'clean accuracy', 'accuracy, corrupted', 'mCE', 'relative mCE', 'robust accuracy',
               'robust against')
    caption = ("n: images behind every number. mCE is relative to AlexNet's errors on ImageNet, and defined there "
               'alone; it and the accuracy under corruption need all 75 conditions. Shifted datasets have a separate '
               f'section. {format_sources(entries)}')
    return Sheet('classifiers', caption, columns, tuple(rows))


def _summarize_corruptions(data: ReportData, entry: ModelResults) -> list[Cell]:
    """Return the cells of the first complete corruption variant."""
    for results in (results for group in data.groups['imagenet_c'] for other, results in group.pairs
                    if other == entry):
        try:
            summary = results.benchmark.summarize(results)
        except MissingMeasurement:
            continue
        return [rate(summary.get(name)) for name in ('mean_accuracy', 'mCE', 'relative_mCE')]
    return [missing()] * 3


def _summarize_attacks(data: ReportData, entry: ModelResults) -> list[Cell]:
    """Return the robust accuracy at Linf 4/255 or 8/255 if available, otherwise at the largest epsilon, and its label.

    It is the worst case over the attacks or, without per-image outcomes, the accuracy under the strongest attack.
    """
    for results in (results for group in data.groups['adversarial'] for other, results in group.pairs
                    if other == entry):
        strongest = {case: estimate for case, estimate in adversarial.find_strongest(results).items()
                     if case.corruption is None}
        if strongest:
            by_threat = {adversarial.describe_threat(case): case for case in strongest}
            chosen = next((by_threat[threat] for threat in USUAL if threat in by_threat), max(strongest))
            worst = adversarial.compute_worst_cases(results, at_least=1)
            text = 'the worst case' if chosen in worst else 'the strongest attack'
            return [rate(worst.get(chosen, strongest[chosen])), words(f'{text}, {adversarial.describe_threat(chosen)}')]
    return [missing(), missing()]


def _tabulate_detectors(data: ReportData, entries: Sequence[ModelResults]) -> Sheet:
    rows = []
    for entry in entries:
        metric = choose_metric(data.make_results(BENCHMARKS['coco_c'](), entry), BENCHMARKS['coco_c'].layout)
        records = [record for record in entry.table.records if record.metric == metric]
        clean = entry.table[CLEAN, metric] if (CLEAN, metric) in entry.table else None
        cells = [rate(clean), missing(), missing()]
        for results in (results for group in data.groups['coco_c'] for other, results in group.pairs if other == entry):
            try:
                summary = results.benchmark.summarize(results)
            except MissingMeasurement:
                continue
            cells = [rate(summary.get(f'{name}({metric})')) for name in ('P', 'mPC', 'rPC')]
            break
        rows.append((entry.cell, words(label_dataset(entry.dataset)), count(min(record.count for record in records)),
                     words(metric), *cells))
    caption = ('n: images. P: clean; mPC: mean over 75 corrupted conditions; rPC: mPC / P. '
               f'{format_sources(entries)}')
    return Sheet('detectors', caption, ('model', 'data', 'n', 'metric', 'P', 'mPC', 'rPC'), tuple(rows))


@SECTIONS.register('speed')
def build_speed(data: ReportData) -> Section:
    """Build the section with every comparison of costs in the tables of speed results."""
    def make_cells(row: Mapping[str, str]) -> tuple[Cell, ...]:
        ours, peers = (Cell(f'{number(float(row[side])).text} {row["unit"]}', float(row[side]))
                       for side in ('ours_median', 'peer_median'))
        peer = f'{row["peer"]} (bound)' if row['bound'] else row['peer']
        return (*(words(row[name]) for name in SPEED_COLUMNS[:4]), ours, words(peer), peers,
                number(float(row['ratio'])), *(words(row[name]) for name in SPEED_COLUMNS[8:]))
    rows = tuple(make_cells(row) for table in data.inputs.speeds.values() for row in table if row['ratio'])
    caption = ("Medians. Ratio: the peer's time or memory divided by ours; above 1 is a gain. A bound is a part of our "
               'own work. The CSV files have the spread, the number of runs and the date.')
    lead = 'Measured by the scripts in speed/, both sides in one run. Numbers of different machines do not compare.'
    return Section('speed', 'Speed', lead, (Sheet('speed', caption, SPEED_COLUMNS, rows),),
                   () if rows else (Gap('no speed results', 'make bench'),))


@SECTIONS.register('images')
def build_images(data: ReportData) -> Section:
    """Build the section with a few evenly spaced images of every folder."""
    images = []
    for index, (folder, files) in enumerate(data.inputs.images.items(), 1):  # two folders may have equal file names
        small = [path for path in files if path.stat().st_size <= MAX_BYTES]
        chosen = [small[position * len(small) // MAX_IMAGES] for position in range(MAX_IMAGES)
                  ] if len(small) > MAX_IMAGES else small
        rest = f' ({len(chosen)} of {len(files)} in this folder)' if len(chosen) < len(files) else ''
        images += [Image(f'image_{index}_{position}', f'{folder.name}/{path.name}{rest}', path.read_bytes(),
                         FORMATS[path.suffix.lower()]) for position, path in enumerate(chosen, 1)]
    gaps = () if images else tuple(Gap(f'no {what}', command) for what, command in IMAGE_COMMANDS)
    return Section('images', 'Images', 'From the given folders.', tuple(images), gaps)


@SECTIONS.register('provenance')
def build_provenance(data: ReportData) -> Section:
    """Build the section on the measured datasets and the runs that measured them."""
    rows = tuple((entry.cell, words(entry.model), words(entry.dataset), count(entry.key[2]),
                  count(max(record.count for record in entry.table.records)), count(len(entry.list_conditions())),
                  count(len(entry.table)), words(', '.join(f'{path.parent.name}/{path.name}' for path in entry.files)))
                 for entry in data.entries)
    cells = {get_model_key(entry.model): Cell(data.get_label(entry.model), model=entry.number)
             for entry in data.entries}
    runs = []
    for run in sorted((run for run in data.inputs.runs if run.argv), key=lambda run: run.started):
        tool = f'pit-downstream {get_tool(run.argv[0])}'
        versions = ', '.join(f'{name} {run.versions[name]}' for name in LIBRARIES if name in run.versions)
        runs.append((words(run.started.replace('T', ' ')[:16]), words(run.benchmark or MISSING),
                     cells.get(get_model_key(run.model), words(run.model or MISSING)) if run.model else missing(),
                     words(label_dataset(run.dataset) if run.dataset else MISSING), words(run.device),
                     words(run.commit or MISSING), words(versions), words(shlex.join([*tool.split(), *run.argv[1:]]))))
    sheets = (Sheet('records', 'Models and datasets, with the names of the records.', (
        'model', 'in the records', 'data', 'seed', 'images', 'conditions', 'records', 'files'), rows),
        Sheet('runs', 'Runs, from runs.jsonl beside the records.', (
            'started, UTC', 'benchmark', 'model', 'data', 'device', 'commit', 'versions', 'command'), tuple(runs)))
    return Section('provenance', 'Provenance', 'Every number comes from a line of a results.jsonl.', sheets)


def _describe_contents(data: ReportData) -> str:
    """Return a line such as '2 models, 3 datasets, 804 records'."""
    counts = {'model': len({entry.number for entry in data.entries}),
              'dataset': len({label_dataset(entry.dataset) for entry in data.entries}),
              'record': sum(len(entry.table) for entry in data.entries), 'training log': len(data.inputs.logs),
              'speed table': len(data.inputs.speeds), 'image': sum(map(len, data.inputs.images.values()))}
    return ', '.join(f'{count} {noun}{"s" * (count != 1)}' for noun, count in counts.items() if count)


def _choose_reference(data: ReportData, reference: str) -> str:
    """Return the label of the model that `reference` names by label, Spec name or full Spec."""
    if reference == ALEXNET:
        return reference
    labels = {entry.label for entry in data.entries
              if reference in (entry.label, entry.model, entry.model.partition('(')[0])}
    if len(labels) != 1:
        every = [ALEXNET, *dict.fromkeys(entry.label for entry in data.entries)]
        near = sorted(labels) or difflib.get_close_matches(reference, every, cutoff=.4) or every
        raise InputError(f'no single model named {reference!r} in these records. Did you mean '
                         f'{", ".join(map(repr, near))}?')
    return labels.pop()
