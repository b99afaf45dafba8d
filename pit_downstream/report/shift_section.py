"""Report section on shifted datasets: errors beside those on the matching clean images."""

from collections.abc import Iterable

from pit_downstream.benchmarks import shifts
from pit_downstream.benchmarks.base import compute_wilson_interval
from pit_downstream.benchmarks.shifts import IMAGENET, Tables
from pit_downstream.results.condition import CLEAN
from pit_downstream.results.records import MissingMeasurement, get_model_key
from pit_downstream.utils.registry import SECTIONS
from pit_downstream.utils.spec import Spec
from pit_downstream.report import plots as charts
from pit_downstream.report.commands import classifier_command
from pit_downstream.report.measured import Measured, ModelResults, sources
from pit_downstream.report.names import VIEW
from pit_downstream.report.parts import Figure, Gap, Part, Section, Sheet, percent, points, slug, format_count, words

PREFIXES = ('imagenet', 'objectnet', 'in9_', shifts.CUSTOM_PREFIX)


@SECTIONS.register('shifts')
def shifts_section(measured: Measured) -> Section:
    """Build the section with a row per model and shift, and two dots per shift: clean and shifted."""
    models = list(_by_model(measured))
    gaps = [Gap(sentence.partition('; to fill')[0], sentence.partition('to fill the gap: ')[2])
            for _, tables, _ in models for sentence in _missing(tables)]
    if not models:
        gaps += [Gap(f'{one.label}: no shifted datasets',
                     classifier_command(measured.kept, 'eval_shifts.py', one.model)) for one in _of_imagenet(measured)]
        gaps = gaps or [Gap('no shifted datasets (ImageNet-A, -R, -V2, -Sketch, ReaL, ObjectNet, IN-9), which need a '
                            "classifier of ImageNet's 1000 classes; nor one of your own (--shifts shift_NAME=DIR)",
                            'pit-downstream eval-shifts --model pit_s')]
    parts: list[Part] = [figure for one, tables, files in models for figure in _dots(one, tables, files)]
    lead = ('Top-1 error in per cent on other images of the same classes, beside the error on the matching clean '
            'ones; the gap is how much higher it is. Its interval holds however the two are correlated.')
    return Section('shifts', 'Shifts', lead, (*parts, *([_sheet(models)] if models else [])), tuple(gaps))


def _by_model(measured: Measured) -> Iterable[tuple[ModelResults, Tables, list[ModelResults]]]:
    """Yield the tables by name for every model and limit. Of several with one name, take the largest table.

    Custom datasets are separate for each clean set that they are compared with.
    """
    found: dict[tuple, dict[str, ModelResults]] = {}
    for one in measured.ones:
        spec = Spec.parse(one.table.dataset)
        if spec.name.startswith(PREFIXES) and (CLEAN, shifts.ERROR) in one.table and spec.name != 'imagenet_c':
            key = get_model_key(one.model), spec.get('limit'), one.key[2], spec.get('clean')
            places = found.setdefault(key, _clean_of_own(measured, one))
            if spec.name not in places or len(one.table) > len(places[spec.name].table):
                places[spec.name] = one
    for places in found.values():
        tables = {name: one.table for name, one in places.items()}
        if shifts.list_measured_shifts(tables):
            yield next(iter(places.values())), tables, list(places.values())


def _clean_of_own(measured: Measured, own: ModelResults) -> dict[str, ModelResults]:
    """Return the clean table for a custom dataset, matched by the digest of its files and by its view, if measured."""
    def seen(one: ModelResults, files: str) -> tuple:
        spec = Spec.parse(one.table.dataset)
        return get_model_key(one.model), one.key[2], spec.get(files), *map(spec.get, VIEW)
    if Spec.parse(own.table.dataset).get('clean') is None:
        return {}
    return next(({shifts.CUSTOM_CLEAN: one} for one in measured.ones
                 if seen(one, 'files') == seen(own, 'clean') and (CLEAN, shifts.ERROR) in one.table), {})


def _missing(tables: Tables) -> list[str]:
    """Return a sentence for every missing clean error."""
    found = []
    for name in shifts.list_measured_shifts(tables):
        try:
            if shifts.get_clean_key(name):
                shifts.compute_gap(tables, name)
        except MissingMeasurement as absent:
            found.append(absent.args[0])
    return list(dict.fromkeys(found))


def _of_imagenet(measured: Measured) -> list[ModelResults]:
    """Return one table per classifier of ImageNet's classes."""
    return list({one.number: one for one in measured.ones if one.classifies
                 and Spec.parse(one.table.dataset).name == IMAGENET}.values())


def _clean(tables: Tables, name: str) -> float | None:
    place = shifts.get_clean_key(name, tables)
    try:
        return None if place is None else shifts.get_record(tables, place).value
    except MissingMeasurement:
        return None


def _sheet(models: list[tuple[ModelResults, Tables, list[ModelResults]]]) -> Sheet:
    rows = []
    for one, tables, _ in models:
        known = shifts.get_timm_errors(one.model)
        for name in [*shifts.list_clean_datasets(tables), *shifts.list_measured_shifts(tables)]:
            record = shifts.get_record(tables, shifts.get_error_key(name))
            clean = _clean(tables, name)
            gap = (None, None) if clean is None else shifts.compute_gap(tables, name)
            rows.append((one.cell, words(name), format_count(record.count),
                         percent(record.value, compute_wilson_interval(record.value, record.count)), percent(clean),
                         points(*gap), percent(known.get(name))))
    columns = ('model', 'dataset', 'images', 'error', 'matching clean error', 'gap, points', "timm's error")
    caption = ('Top-1 error in per cent with 95 % intervals (Wilson). '
               f'{sources([one for _, _, ones in models for one in ones])}')
    published = any(row[-1].value is not None for row in rows)
    return Sheet('shifts', caption, columns if published else columns[:-1],
                 tuple(rows if published else [row[:-1] for row in rows]))


def _dots(one: ModelResults, tables: Tables, ones: list[ModelResults]) -> list[Figure]:
    names = list(shifts.list_measured_shifts(tables))
    values = {row: (_clean(tables, name), shifts.get_record(tables, shifts.get_error_key(name)).value)
              for row, name in enumerate(names)}
    drawing = charts.pairs(one.label, names, values, one.number, names=('matching clean images', 'shifted images'),
                           xlabel='top-1 error, %')
    shown = tuple({'model': one.label, 'shift': names[row], 'clean': before, 'error': after}
                  for row, (before, after) in values.items())
    return [Figure(f'shifts_{slug(one.label)}', f'{one.label}: top-1 error in per cent on shifted datasets and on the '
                   f'matching clean images. {sources(ones)}', drawing, shown)]
