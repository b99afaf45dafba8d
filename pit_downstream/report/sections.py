"""Report from its sections, and the sections on no single benchmark: headline, speed, images and provenance."""

import difflib
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from pit_downstream.benchmarks import adversarial
from pit_downstream.benchmarks.detection_attacks import list_main_metrics
from pit_downstream.benchmarks.shifts import is_shift
from pit_downstream.results.commands import get_tool
from pit_downstream.results.condition import CLEAN
from pit_downstream.results.labels import label_dataset, label_models
from pit_downstream.results.layout import make_cell
from pit_downstream.results.records import get_model_key
from pit_downstream.results.results import Gap, Results
from pit_downstream.results.tables import MISSING, Cell, count, missing, number, rate, words
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import BENCHMARKS, SECTIONS
from pit_downstream.report import attacks, training
from pit_downstream.report.benchmark_section import build_section
from pit_downstream.report.data import ALEXNET, ReportData
from pit_downstream.report.differences import build_differences
from pit_downstream.report.inputs import FORMATS, Inputs, read_inputs
from pit_downstream.report.models import ERROR, ModelResults, format_sources
from pit_downstream.report.parts import Image, Report, Section, finish_section, make_readable, make_table

TITLE = 'Robustness report'
BEFORE = ('headline', 'differences', 'imagenet_c', 'occlusion', 'coco_c', 'adversarial', 'transfer',
          'detection_attacks', 'shifts', 'attention')
AFTER = ('training', 'speed', 'images', 'provenance')
CAPTIONS = {
    'classifier': "n: images behind every number. mCE is relative to AlexNet's errors on ImageNet, and defined there "
    'alone; it and the mean accuracy need all 75 corrupted conditions. Shifted datasets have a separate section.',
    'detector': 'n: images. P: clean; mPC: mean over 75 corrupted conditions; rPC: mPC / P.'}
USUAL = ('Linf 4/255', 'Linf 8/255')  # preferred in the headline, as in most papers
LIBRARIES = ('pit_downstream', 'torch', 'timm', 'mmdet')  # libraries whose versions are shown
MAX_IMAGES, MAX_BYTES = 6, 3 << 20  # images per folder, and size of each: the page embeds all of them
IMAGE_COMMANDS = (('corrupted images', 'pit-downstream show-corruptions PHOTO.jpg --output DIR/corruptions.png'),
                  ('detections', 'pit-downstream show-detections --model CONFIG --weights CHECKPOINT --output '
                                 'DIR/detections.png'))

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
                  tuple(dict.fromkeys(label_models(table.model for table in inputs.tables.values()).values())))


@SECTIONS.register('headline')
def build_headline(data: ReportData) -> Section:
    """Build the section with one row per model and dataset: clean numbers, summaries, and robust accuracy."""
    sheets = []
    for task in ('classifier', 'detector'):
        entries = [entry for entry in data.entries if entry.task == task and not is_shift(entry.dataset)
                   and (task == 'detector' or ERROR in entry.metrics)]
        caption = CAPTIONS[task] + f' {format_sources(entries)}'
        sheets.append(make_table(f'{task}s', caption, [_summarize(data, entry) for entry in entries]))
    lead = ('In percent, with 95 % intervals where a number is a rate of images. A number that was not measured is a '
            'dash, and is listed at the end with the command that measures it.')
    return Section('headline', 'Overview', lead, tuple(sheets))


def _summarize(data: ReportData, entry: ModelResults) -> dict[str, Cell]:
    """Return the row of a model on a dataset."""
    metric = ERROR if entry.task == 'classifier' else list_main_metrics(entry.table)[0]
    records = [record for record in entry.table.records if record.metric == metric]
    row = {'model': entry.cell, 'data': words(label_dataset(entry.dataset)),
           'n': count(min(record.count for record in records))}
    if (CLEAN, metric) in entry.table:
        row |= {'clean accuracy': rate(adversarial.get_accuracy(entry.table, CLEAN))} if metric == ERROR else {
            f'P({metric})': rate(entry.table[CLEAN, metric])}
    results = {name: [results for group in groups for other, results in group.pairs if other == entry]
               for name, groups in data.groups.items() if name not in ('shifts', 'attention')}
    for several in results.values():  # of several variants of the corruptions, the first complete one
        headline = next(filter(None, (one.benchmark.select_headline(one) for one in several)), {})
        row |= {make_readable(title): make_cell(title, estimate) for title, estimate in headline.items()}
    return row | (_summarize_attacks(results['adversarial'][0]) if results['adversarial'] else {})


def _summarize_attacks(results: Results) -> dict[str, Cell]:
    """Return the robust accuracy at Linf 4/255 or 8/255 if available, otherwise at the largest epsilon, and its label.

    It is the worst case over the attacks or, without per-image outcomes, the accuracy under the strongest attack.
    """
    strongest = {case: estimate for case, estimate in adversarial.find_strongest(results).items()
                 if case.corruption is None}
    if not strongest:
        return {}
    by_threat = {adversarial.describe_threat(case): case for case in strongest}
    chosen = next((by_threat[threat] for threat in USUAL if threat in by_threat), max(strongest))
    worst = adversarial.compute_worst_cases(results, at_least=1)
    text = 'the worst case' if chosen in worst else 'the strongest attack'
    return {'robust accuracy': rate(worst.get(chosen, strongest[chosen])),
            'robust against': words(f'{text}, {adversarial.describe_threat(chosen)}')}


@SECTIONS.register('speed')
def build_speed(data: ReportData) -> Section:
    """Build the section with every comparison of costs in the tables of speed results."""
    def make_row(row: Mapping[str, str]) -> dict[str, Cell]:
        ours, peers = (Cell(f'{number(float(row[side])).text} {row["unit"]}', float(row[side]))
                       for side in ('ours_median', 'peer_median'))
        peer = words(f'{row["peer"]} (bound)' if row['bound'] else row['peer'])
        return {**{name: words(row[name]) for name in ('benchmark', 'case', 'setting', 'metric')}, 'ours': ours,
                'peer': peer, "the peer's": peers, 'ratio': number(float(row['ratio'])),
                **{name: words(row[name]) for name in ('device', 'threads', 'commit')}}
    rows = [make_row(row) for table in data.inputs.speeds.values() for row in table if row['ratio']]
    caption = ("Medians. Ratio: the peer's time or memory divided by ours; above 1 is a gain. A bound is a part of our "
               'own work. The CSV files have the spread, the number of runs and the date.')
    lead = 'Measured by the scripts in speed/, both sides in one run. Numbers of different machines do not compare.'
    return Section('speed', 'Speed', lead, (make_table('speed', caption, rows),),
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
    rows = [{'model': entry.cell, 'in the records': words(entry.model), 'data': words(entry.dataset),
             'seed': count(entry.key[2]), 'images': count(max(record.count for record in entry.table.records)),
             'conditions': count(len(entry.list_conditions())), 'records': count(len(entry.table)),
             'files': words(', '.join(f'{path.parent.name}/{path.name}' for path in entry.files))}
            for entry in data.entries]
    cells = {entry.key[0]: Cell(data.get_label(entry.model), model=entry.number) for entry in data.entries}
    runs = [{'started, UTC': words(run.started.replace('T', ' ')[:16]), 'benchmark': words(run.benchmark),
             'model': cells.get(get_model_key(run.model), words(run.model)) if run.model else missing(),
             'data': words(run.dataset and label_dataset(run.dataset)), 'device': words(run.device),
             'commit': words(run.commit or MISSING), 'versions': words(', '.join(
                 f'{name} {run.versions[name]}' for name in LIBRARIES if name in run.versions)),
             'command': words(shlex.join(['pit-downstream', get_tool(run.argv[0]), *run.argv[1:]]))}
            for run in sorted(data.inputs.runs, key=lambda run: run.started) if run.argv]
    return Section('provenance', 'Provenance', 'Every number comes from a line of a results.jsonl.', (
        make_table('records', 'Models and datasets, with the names of the records.', rows),
        make_table('runs', 'Runs, from runs.jsonl beside the records.', runs)))


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
