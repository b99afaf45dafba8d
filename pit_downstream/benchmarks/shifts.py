"""Dataset shifts: top-1 error on other images of the same classes, and the gap to the matching clean images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from pit_downstream.benchmarks.base import Benchmark
from pit_downstream.results.commands import parse_flags
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.intervals import Estimate, compute_weighted_interval
from pit_downstream.results.layout import Layout
from pit_downstream.results.records import MissingMeasurement, Record, Table, get_weights_label
from pit_downstream.results.results import Gap
from pit_downstream.results.tables import Sheet, count, missing, points, rate, words
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Spec

if TYPE_CHECKING:
    from pit_downstream.results.results import Results

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
        return MetricKey(CUSTOM_CLEAN, ERROR if classes is None else f'classes_{classes}_{ERROR}')
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
    """Return the record of a key. Raises MissingMeasurement."""
    model = next(iter(tables.values())).model
    return (tables.get(key.dataset) or Table(model, key.dataset)).record((CLEAN, key.metric))


def compute_gap(tables: Tables, shift: str) -> Estimate:
    """Return the error of the shift minus the matching clean error."""
    clean = get_clean_key(shift, tables)
    assert clean is not None
    return _subtract(get_record(tables, get_error_key(shift)), get_record(tables, clean))


def compute_bg_gap(tables: Tables) -> Estimate:
    """Compute the BG-gap (Xiao et al. 2020), accuracy on mixed_same - accuracy on mixed_rand."""
    same, random = (get_record(tables, MetricKey(name)) for name in (SAME, RANDOM))
    return _subtract(random, same)


def summarize(tables: Tables, shifts: Iterable[str] | None = None) -> dict[str, Estimate]:
    """Return error and gap of every shift, and the BG-gap if one of its two sides is selected, in fractions.

    shifts: names, by default all in `tables`. Raises MissingMeasurement for missing results.
    """
    names = list_measured_shifts(tables) if shifts is None else list(shifts)
    records = {name: get_record(tables, get_error_key(name)) for name in names}
    errors = {f'{name}_error': Estimate.of_rate(record.value, record.count) for name, record in records.items()}
    gaps = {f'{name}_gap': compute_gap(tables, name) for name in names if get_clean_key(name)}
    return errors | gaps | ({'bg_gap': compute_bg_gap(tables)} if {SAME, RANDOM} & set(names) else {})


def list_measured_shifts(tables: Tables) -> tuple[str, ...]:
    """Return the shifts with an error in `tables`."""
    shifted = [name for name in tables if name not in (IMAGENET, CUSTOM_CLEAN)]
    names = [*shifted, *([REAL] if IMAGENET in tables else [])]
    return tuple(name for name in names if get_error(tables, name) is not None)


def get_error(tables: Tables, name: str) -> Estimate | None:
    """Return the error of a dataset with its interval, None if it was not measured."""
    try:
        record = get_record(tables, get_error_key(name))
    except MissingMeasurement:
        return None
    return Estimate.of_rate(record.value, record.count)


def get_clean_error(tables: Tables, name: str) -> float | None:
    """Return the matching clean error of a shift, None if it was not measured or does not exist."""
    key = get_clean_key(name, tables)
    try:
        return None if key is None else get_record(tables, key).value
    except MissingMeasurement:
        return None


def _subtract(error: Record, clean: Record) -> Estimate:
    terms = (1, error.value, error.count), (-1, clean.value, clean.count)
    return Estimate(error.value - clean.value, *compute_weighted_interval(terms))


@BENCHMARKS.register('shifts')
@dataclass(frozen=True)
class Shifts(Benchmark):
    """Errors on shifted datasets, and their gaps to clean images of the same classes.

    The results have a table per dataset: 'imagenet' or 'clean', 'imagenet_a', ..., 'shift_fog'.

    Attributes:
        shifts: Texts NAME or NAME=DIR (datasets.shifts.select_shifts), () for all available datasets.
    """

    name = 'shifts'
    title = 'Shifts'
    about = ('Top-1 error in percent on other images of the same classes, beside the error on the matching clean '
             'images; the gap is the difference. Its interval holds for any correlation of the two.')
    layout = Layout(rows='dataset', value=ERROR)

    shifts: tuple[str, ...] = field(default=(), metadata={
        'help': 'datasets and their folders; in9 selects every variation of the Backgrounds Challenge, '
        'shift_ANYTHING=DIR a custom dataset with the class folders of --data', 'metavar': 'NAME[=DIR]',
        'default': 'all datasets in the folders that data/README.md describes'})

    def conditions(self) -> tuple[Condition, ...]:
        return (CLEAN,)

    @property
    def names(self) -> list[str]:
        """Names of the selected shifts."""
        return [text.partition('=')[0] for text in self.shifts]

    def summarize(self, results: 'Results') -> dict[str, Estimate]:
        """Return error and gap of every shift, and the BG-gap. Raises MissingMeasurement for missing results."""
        return summarize(results.tables, self.names or None)

    def select_headline(self, results: 'Results') -> dict[str, Estimate]:
        """Return the gaps that were measured, and the error of ReaL. The layout has the other errors."""
        tables = results.tables
        headline: dict[str, Estimate] = {}
        for name in list_measured_shifts(tables):
            if name == REAL and (error := get_error(tables, REAL)) is not None:
                headline[f'{REAL}_error'] = error
            if get_clean_error(tables, name) is not None:
                headline[f'{name}_gap'] = compute_gap(tables, name)
        return headline | ({'bg_gap': compute_bg_gap(tables)} if {SAME, RANDOM} <= set(tables) else {})

    def tabulate(self, results: 'Results') -> list[Sheet]:
        """Return a row for the clean images, if any, and for every shift: error, matching clean error, gap.

        Errors that timm publishes for the same weights are in a last column.
        """
        tables, known = results.tables, get_timm_errors(results.model)
        names = self.names or list(list_measured_shifts(tables))
        rows = []
        for name in [*list_clean_datasets(tables), *names]:
            error, clean = get_error(tables, name), get_clean_error(tables, name)
            gap = missing() if get_clean_key(name, tables) else words('')
            rows.append((words(name), missing() if error is None else count(error.count or 0), rate(error),
                         gap if clean is None else rate(clean),
                         gap if clean is None or error is None else points(compute_gap(tables, name)),
                         rate(known.get(name))))
        columns = ('dataset', 'images', 'error', 'clean error', 'gap', "timm's error")
        caption = (f'Top-1 error of {results.label} in percent with 95 % intervals (Wilson), the error on the matching '
                   'clean images, and the gap to it in points.')
        sheets = [Sheet(self.name, caption, columns if known else columns[:-1],
                        tuple(rows if known else [row[:-1] for row in rows]))]
        if {SAME, RANDOM} <= set(names) & set(tables):
            sheets.append(Sheet('bg_gap', 'BG-gap (Xiao et al. 2020): accuracy on mixed_same - accuracy on '
                                'mixed_rand, in points.', ('', 'value'), ((words('BG-gap'), points(
                                    compute_bg_gap(tables))),)))
        return sheets

    def find_gaps(self, results: 'Results') -> list[Gap]:
        """Return the shifts and the matching clean errors that are missing."""
        absent: dict[str, list[str]] = {}
        names = self.names or list_measured_shifts(results.tables)
        unmeasured = [name for name in names if get_error(results.tables, name) is None]
        if unmeasured:
            flags = parse_flags(results.argv[1:]).get('--shifts') or [
                text if '=' in text or text == REAL else f'{text}=DIR' for text in self.shifts]
            return [Gap(f'{", ".join(unmeasured)} not measured', self.build_command(
                results, [], flags={'--shifts': flags}))]
        for name in names:
            key = get_clean_key(name, results.tables)
            if key and get_clean_error(results.tables, name) is None:
                absent.setdefault(key.dataset, []).append(name)
        return [Gap(f'no gap of {", ".join(names)}: error of {dataset} not measured', self.build_clean_command(
            results, dataset)) for dataset, names in absent.items()]

    def build_clean_command(self, results: 'Results', dataset: str) -> str:
        """Return the command that measures the clean images of some shifts."""
        if dataset in (IMAGENET, CUSTOM_CLEAN):
            flags: Mapping[str, Sequence[str]] = {'--data': ['DIR']}
        else:
            given = parse_flags(results.argv[1:]).get('--shifts', [])
            flags = {'--shifts': [*given, f'{dataset}=DIR']}
        return self.build_command(results, [], flags=flags)

    @property
    def tool(self) -> str:
        return 'eval-shifts'
