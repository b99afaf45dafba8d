"""Dataset shifts: top-1 error on other images of the same classes, and the gap to the matching clean images."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from pit_downstream.results.condition import CLEAN
from pit_downstream.results.records import MissingMeasurement, Record, Table, get_weights_label
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Spec
from pit_downstream.benchmarks.base import (
    Benchmark,
    compute_weighted_interval,
    compute_wilson_interval,
    format_model_flag,
)
from pit_downstream.benchmarks.tables import align_columns, format_number, format_records_csv, make_row

ERROR = 'top1_error'
IMAGENET = 'imagenet'
IN9 = 'in9_original'
SAME, RANDOM = 'in9_mixed_same', 'in9_mixed_rand'
CHALLENGE = 'in9_challenge'
CUSTOM_PREFIX = 'shift_'  # prefix of the name of a custom dataset
CUSTOM_CLEAN = 'clean'  # name of the clean images for custom datasets
SUBSETS = ('imagenet_a', 'imagenet_r', 'objectnet')  # compared with the clean images of their classes
REAL = 'imagenet_real'

Tables = Mapping[str, Table]  # by dataset name: 'imagenet', 'imagenet_a' ..., 'clean', 'shift_fog'

# Accuracies in percent, published by timm (huggingface/pytorch-image-models aa4b5850, results/*.csv): 224 px, crop 0.9,
# bicubic. resnet50.tv_in1k: crop 0.875, bilinear.
_COLUMNS = (IMAGENET, 'imagenet_a', 'imagenet_r', 'imagenet_sketch', 'imagenet_v2_matched_frequency', REAL)
_TIMM = {
    'pit_ti_224.in1k': (72.926, 6.067, 34.630, 21.852, 60.940, 80.603),
    'pit_xs_224.in1k': (78.196, 12.720, 40.520, 27.489, 66.920, 84.777),
    'pit_s_224.in1k': (81.114, 21.080, 43.893, 31.325, 69.800, 86.319),
    'pit_b_224.in1k': (82.458, 32.773, 44.083, 32.697, 71.650, 86.707),
    'pit_ti_distilled_224.in1k': (74.276, 6.933, 37.783, 24.721, 63.060, 81.790),
    'pit_xs_distilled_224.in1k': (79.172, 13.507, 43.757, 30.555, 68.130, 85.543),
    'pit_s_distilled_224.in1k': (81.826, 22.987, 47.557, 34.166, 71.170, 87.091),
    'pit_b_distilled_224.in1k': (83.774, 36.653, 50.253, 37.208, 73.820, 88.106),
    'deit_tiny_patch16_224.fb_in1k': (72.190, 7.213, 32.713, 20.140, 59.920, 80.026),
    'deit_small_patch16_224.fb_in1k': (79.856, 18.720, 42.270, 29.435, 68.530, 85.672),
    'deit_base_patch16_224.fb_in1k': (81.980, 27.173, 44.913, 32.390, 70.970, 86.833),
    'convit_tiny.fb_in1k': (73.140, 8.707, 35.100, 22.266, 61.430, 81.132),
    'convit_small.fb_in1k': (81.412, 24.813, 45.250, 32.956, 70.710, 87.038),
    'convit_base.fb_in1k': (82.296, 29.387, 48.247, 35.318, 71.520, 87.200),
    'resnet50.tv_in1k': (76.156, None, 36.157, 24.064, 63.190, 82.969),
    'resnet50.a1_in1k': (80.382, 9.973, 40.417, 29.641, 68.470, 85.712),
}


@dataclass(frozen=True)
class MetricKey:
    """Key of a result: a metric of the clean condition on a dataset."""

    dataset: str
    metric: str = ERROR


def get_error_key(shift: str) -> MetricKey:
    """Return the key of a shift's error. ReaL is a metric on ImageNet's images."""
    return MetricKey(IMAGENET, f'{REAL}_error') if shift == REAL else MetricKey(shift)


def get_clean_key(shift: str, tables: Tables = MappingProxyType({})) -> MetricKey | None:
    """Return the key of the matching clean error: the same metric on the clean images of the same classes.

    tables: for a custom dataset, whose record names its classes if they are a subset.
    """
    if shift.startswith(CUSTOM_PREFIX):
        classes = Spec.parse(tables[shift].dataset).get('classes') if shift in tables else None
        return MetricKey(CUSTOM_CLEAN, ERROR if classes is None else f'{ERROR}_of_{classes}')
    if shift in (*SUBSETS, REAL):
        return MetricKey(IMAGENET, f'{shift}_clean_error')
    if shift.startswith('in9_'):
        return None if shift == IN9 else MetricKey(IN9)
    return None if shift in (IMAGENET, CUSTOM_CLEAN) else MetricKey(IMAGENET)


def is_shift(dataset: str) -> bool:
    """Return whether a recorded dataset is a shifted one. Its error without corruption is not a clean error."""
    name = Spec.parse(dataset).name
    return name.startswith((CUSTOM_PREFIX, 'in9_', 'objectnet', 'imagenet_v2_')) or name in (
        'imagenet_a', 'imagenet_r', 'imagenet_sketch', 'imagenet_stylized', REAL)


def list_clean_datasets(tables: Tables) -> tuple[str, ...]:
    """Return the names of the clean images in `tables`."""
    return tuple(name for name in (IMAGENET, CUSTOM_CLEAN) if name in tables)


def get_timm_errors(model: str) -> Mapping[str, float]:
    """Return the top-1 errors that timm publishes for these weights, by shift name; empty if there are none.

    model: recorded Spec text, which includes the weights: "pit_s(weights='timm/pit_s_224.in1k')".
    """
    label = get_weights_label(model)
    accuracies = dict(zip(_COLUMNS, _TIMM.get(label.removeprefix('timm/'), ()) if label.startswith('timm/') else (),
                          strict=False))
    return MappingProxyType({name: 1 - value / 100 for name, value in accuracies.items() if value is not None})


def get_record(tables: Tables, key: MetricKey) -> Record:
    """Return the record of a key. Raises MissingMeasurement with the command that measures it."""
    model = next(iter(tables.values())).model
    table = tables.get(key.dataset) or Table(model, key.dataset)
    clean = key.dataset in (IMAGENET, CUSTOM_CLEAN)
    what = '--data DIR with the clean images' if clean else f'--shifts {key.dataset}=DIR'
    table.require([(CLEAN, key.metric)],
                  command=f'pit-downstream eval-shifts {format_model_flag(model)} {what} and the '
                                                   'other flags of the first run')
    return table.record((CLEAN, key.metric))


def compute_gap(tables: Tables, shift: str) -> tuple[float, tuple[float, float]]:
    """Return the error of the shift minus the matching clean error, with its 95 % interval."""
    clean = get_clean_key(shift, tables)
    assert clean is not None
    return _subtract(get_record(tables, get_error_key(shift)), get_record(tables, clean))


def compute_bg_gap(tables: Tables) -> tuple[float, tuple[float, float]]:
    """Compute the BG-gap (Xiao et al. 2020), accuracy on mixed_same - accuracy on mixed_rand, and its 95 % interval."""
    same, random = (get_record(tables, MetricKey(name)) for name in (SAME, RANDOM))
    return _subtract(random, same)


def summarize(tables: Tables, shifts: Iterable[str] | None = None) -> dict[str, float]:
    """Return error and gap of every shift, and the BG-gap if one of its two sides is selected, in fractions.

    shifts: names, by default all in `tables`. Raises MissingMeasurement for missing results.
    """
    names = list_measured_shifts(tables) if shifts is None else tuple(shifts)
    errors = {f'{name}_error': get_record(tables, get_error_key(name)).value for name in names}
    return errors | {name: value for name, (value, _) in _compute_gaps(tables, names).items()}


def compute_intervals(tables: Tables, shifts: Iterable[str] | None = None) -> dict[str, tuple[float, float]]:
    """Return 95 % intervals of the gaps of summarize(). Tables contain those of the errors (Wilson)."""
    return {name: interval for name,
            (_, interval) in _compute_gaps(tables, list_measured_shifts(tables) if shifts is None else shifts).items()}


def list_measured_shifts(tables: Tables) -> tuple[str, ...]:
    """Return the shifts with an error in `tables`."""
    shifted = [name for name in tables if name not in (IMAGENET, CUSTOM_CLEAN)]
    names = [*shifted, *([REAL] if IMAGENET in tables else [])]
    return tuple(name for name in names if (CLEAN, get_error_key(name).metric) in tables[get_error_key(name).dataset])


def _compute_gaps(tables: Tables, names: Iterable[str]) -> dict[str, tuple[float, tuple[float, float]]]:
    names = list(names)
    gaps = {f'{name}_gap': compute_gap(tables, name) for name in names if get_clean_key(name)}
    return gaps | ({'bg_gap': compute_bg_gap(tables)} if {SAME, RANDOM} & set(names) else {})


def _subtract(error: Record, clean: Record) -> tuple[float, tuple[float, float]]:
    terms = (1, error.value, error.count), (-1, clean.value, clean.count)
    return error.value - clean.value, compute_weighted_interval(terms)


def format_table(tables: Tables, names: Sequence[str]) -> str:
    """Return a line for the clean images, if any, and for every shift: error, its interval, clean error, gap.

    Errors that timm publishes for the same weights are in a last column. '-' marks a missing measurement.
    """
    known = get_timm_errors(next(iter(tables.values())).model)
    rows = [['top-1 error', 'images', 'error', '95 %', 'clean', 'gap', 'timm']]
    for name in [*list_clean_datasets(tables), *names]:
        record = get_record(tables, get_error_key(name))
        interval = ' to '.join(map(format_number, compute_wilson_interval(record.value, record.count)))
        rows.append([name, str(record.count), format_number(record.value), interval,
                     *_format_clean_and_gap(tables, name, record), format_number(known.get(name))])
    return align_columns(rows if known else [cells[:-1] for cells in rows])


def format_summary(tables: Tables, names: Sequence[str]) -> str:
    """Return the BG-gap if both sides are measured, and a sentence for every gap without its clean error."""
    lines = []
    if {SAME, RANDOM} <= set(names):
        value, (low, high) = compute_bg_gap(tables)
        lines = [f'BG-gap  {format_number(value)}  (95 %: {format_number(low)} to {format_number(high)})']
    missing: dict[str, list[str]] = {}
    for name in names:
        try:
            if get_clean_key(name):
                compute_gap(tables, name)
        except MissingMeasurement as error:
            missing.setdefault(error.args[0], []).append(name)
    return '\n'.join([*lines, *(f'no gap of {", ".join(these)}: {sentence}' for sentence, these in missing.items())])


def format_csv(tables: Tables) -> str:
    """Return one line per record; low and high are the ends of the 95 % interval (Wilson)."""
    return format_records_csv(_list_records(tables))


def format_json(tables: Tables, names: Sequence[str]) -> str:
    """Return {'model', 'summary', 'intervals', 'records'}; summary and intervals are null over a gap."""
    summary: dict[str, float] | None
    intervals: dict[str, tuple[float, float]] | None
    try:
        summary, intervals = summarize(tables, names), compute_intervals(tables, names)
    except MissingMeasurement:
        summary = intervals = None
    return json.dumps({'model': next(iter(tables.values())).model, 'summary': summary, 'intervals': intervals,
                       'records': list(map(make_row, _list_records(tables)))}, indent=1) + '\n'


def _list_records(tables: Tables) -> list[Record]:
    """Return each record once: 'imagenet' and 'clean' may be the same table."""
    return list(dict.fromkeys(record for table in tables.values() for record in table.records))


def _format_clean_and_gap(tables: Tables, name: str, record: Record) -> tuple[str, str]:
    """Return clean error and gap: '' without matching clean images, '-' if they were not measured."""
    key = get_clean_key(name, tables)
    if key is None:
        return '', ''
    try:
        clean = get_record(tables, key).value
    except MissingMeasurement:
        return format_number(None), format_number(None)
    return format_number(clean), format_number(record.value - clean)


BENCHMARKS.register('shifts')(
    Benchmark('shifts', dataset=IMAGENET, conditions=(CLEAN,), metrics=(ERROR,), summarize=summarize))
