"""Dataset shifts: top-1 error on other images of the same classes, and the gap to the matching clean images."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pit_downstream.results.condition import CLEAN
from pit_downstream.results.records import Record, Table, weights_label
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Spec
from pit_downstream.benchmarks.base import Benchmark, model_flag, weighted_interval

ERROR = 'top1_error'
IMAGENET = 'imagenet'
IN9 = 'in9_original'
SAME, RANDOM = 'in9_mixed_same', 'in9_mixed_rand'
CHALLENGE = 'in9_challenge'
OWN = 'shift_'  # prefix of the name of a custom dataset
CLEAN_OF_OWN = 'clean'  # name of the clean images for custom datasets
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
# Accuracies in percent on the clean images of the 200 classes of ImageNet-A and -R; same source
_TIMM_CLEAN = {
    'pit_ti_224.in1k': (89.950, 90.440), 'pit_s_224.in1k': (94.660, 94.600), 'pit_b_224.in1k': (95.620, 94.820),
    'deit_small_patch16_224.fb_in1k': (94.430, 94.000), 'resnet50.tv_in1k': (91.890, 92.150),
}


@dataclass(frozen=True)
class Place:
    """Key of a result: a metric of the clean condition on a dataset."""

    dataset: str
    metric: str = ERROR


def place_of(shift: str) -> Place:
    """Return the key of a shift's error. ReaL is a metric on ImageNet's images."""
    return Place(IMAGENET, f'{REAL}_error') if shift == REAL else Place(shift)


def clean_of(shift: str, tables: Tables = MappingProxyType({})) -> Place | None:
    """Return the key of the matching clean error: the same metric on the clean images of the same classes.

    tables: for a custom dataset, whose record names its classes if they are a subset.
    """
    if shift.startswith(OWN):
        classes = Spec.parse(tables[shift].dataset).get('classes') if shift in tables else None
        return Place(CLEAN_OF_OWN, ERROR if classes is None else f'{ERROR}_of_{classes}')
    if shift in (*SUBSETS, REAL):
        return Place(IMAGENET, f'{shift}_clean_error')
    if shift.startswith('in9_'):
        return None if shift == IN9 else Place(IN9)
    return None if shift in (IMAGENET, CLEAN_OF_OWN) else Place(IMAGENET)


def is_shift(dataset: str) -> bool:
    """Return whether a recorded dataset is a shifted one. Its error without corruption is not a clean error."""
    name = Spec.parse(dataset).name
    return name.startswith((OWN, 'in9_', 'objectnet', 'imagenet_v2_')) or name in (
        'imagenet_a', 'imagenet_r', 'imagenet_sketch', 'imagenet_stylized', REAL)


def clean_names(tables: Tables) -> tuple[str, ...]:
    """Return the names of the clean images in `tables`."""
    return tuple(name for name in (IMAGENET, CLEAN_OF_OWN) if name in tables)


def published(model: str) -> Mapping[str, float]:
    """Return the top-1 errors that timm publishes for these weights, by shift name; empty if there are none.

    model: recorded Spec text, which includes the weights: "pit_s(weights='timm/pit_s_224.in1k')".
    """
    accuracies = dict(zip(_COLUMNS, _TIMM.get(_timm_name(model), ()), strict=False))
    return MappingProxyType({name: 1 - value / 100 for name, value in accuracies.items() if value is not None})


def published_clean(model: str) -> Mapping[str, float]:
    """Return the same as published() for the clean images of the classes of ImageNet-A and -R."""
    accuracies = zip(SUBSETS, _TIMM_CLEAN.get(_timm_name(model), ()), strict=False)
    return MappingProxyType({name: 1 - value / 100 for name, value in accuracies})


def _timm_name(model: str) -> str:
    """Return timm's name of published weights, 'pit_s_224.in1k'; '' for a file."""
    label = weights_label(model)
    return label.removeprefix('timm/') if label.startswith('timm/') else ''


def record_at(tables: Tables, place: Place) -> Record:
    """Return the record of a key. Raises MissingMeasurement with the command that measures it."""
    model = next(iter(tables.values())).model
    table = tables.get(place.dataset) or Table(model, place.dataset)
    clean = place.dataset in (IMAGENET, CLEAN_OF_OWN)
    what = '--data DIR with the clean images' if clean else f'--shifts {place.dataset}=DIR'
    table.require([(CLEAN, place.metric)], command=f'python tools/eval_shifts.py {model_flag(model)} {what} and the '
                                                   'other flags of the first run')
    return table.record((CLEAN, place.metric))


def gap(tables: Tables, shift: str) -> tuple[float, tuple[float, float]]:
    """Return the error of the shift minus the matching clean error, with its 95 % interval."""
    clean = clean_of(shift, tables)
    assert clean is not None
    return _difference(record_at(tables, place_of(shift)), record_at(tables, clean))


def bg_gap(tables: Tables) -> tuple[float, tuple[float, float]]:
    """Compute the BG-gap (Xiao et al. 2020), accuracy on mixed_same - accuracy on mixed_rand, and its 95 % interval."""
    same, random = (record_at(tables, Place(name)) for name in (SAME, RANDOM))
    return _difference(random, same)


def summarise(tables: Tables, shifts: Iterable[str] | None = None) -> dict[str, float]:
    """Return error and gap of every shift, and the BG-gap if one of its two sides is selected, in fractions.

    shifts: names, by default all in `tables`. Raises MissingMeasurement for missing results.
    """
    names = held(tables) if shifts is None else tuple(shifts)
    errors = {f'{name}_error': record_at(tables, place_of(name)).value for name in names}
    return errors | {name: value for name, (value, _) in _gaps(tables, names).items()}


def intervals(tables: Tables, shifts: Iterable[str] | None = None) -> dict[str, tuple[float, float]]:
    """Return 95 % intervals of the gaps of summarise(). Tables contain those of the errors (Wilson)."""
    return {name: interval for name, (_, interval) in _gaps(tables, held(tables) if shifts is None else shifts).items()}


def held(tables: Tables) -> tuple[str, ...]:
    """Return the shifts with an error in `tables`."""
    shifted = [name for name in tables if name not in (IMAGENET, CLEAN_OF_OWN)]
    names = [*shifted, *([REAL] if IMAGENET in tables else [])]
    return tuple(name for name in names if (CLEAN, place_of(name).metric) in tables[place_of(name).dataset])


def _gaps(tables: Tables, names: Iterable[str]) -> dict[str, tuple[float, tuple[float, float]]]:
    names = list(names)
    gaps = {f'{name}_gap': gap(tables, name) for name in names if clean_of(name)}
    return gaps | ({'bg_gap': bg_gap(tables)} if {SAME, RANDOM} & set(names) else {})


def _difference(error: Record, clean: Record) -> tuple[float, tuple[float, float]]:
    terms = (1, error.value, error.count), (-1, clean.value, clean.count)
    return error.value - clean.value, weighted_interval(terms)


BENCHMARKS.register('shifts')(
    Benchmark('shifts', dataset=IMAGENET, conditions=(CLEAN,), metrics=(ERROR,), summarise=summarise))
