"""ImageNet-C (Hendrycks & Dietterich 2019): top-1 error under corruptions, relative to AlexNet's."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from types import MappingProxyType

from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.records import Key, MissingMeasurement, Table, is_content
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Spec, Value
from pit_downstream.benchmarks.base import Benchmark, compute_weighted_interval, format_model_flag
from pit_downstream.benchmarks.shifts import is_shift
from pit_downstream.benchmarks.tables import align_columns, average_or_none, format_number, make_row

ERROR = 'top1_error'
METRICS = (ERROR, 'top5_error', 'nll', 'ece')
SEVERITIES = (1, 2, 3, 4, 5)

# AlexNet's top-1 error by severity, as published with the benchmark (hendrycks/robustness, issue 10). The row means
# are the normalizers in AugMix, easyrobust, FAN and RVT, which have six digits.
ALEXNET = MappingProxyType({
    'gaussian_noise': (.69528, .82542, .93554, .98138, .99452),
    'shot_noise': (.71224, .85108, .93574, .98182, .99146),
    'impulse_noise': (.78374, .89808, .94870, .98720, .99548),
    'defocus_blur': (.65624, .73202, .85036, .91364, .94714),
    'glass_blur': (.64308, .75054, .88806, .91622, .93344),
    'motion_blur': (.58430, .70048, .82108, .89750, .92638),
    'zoom_blur': (.70008, .76992, .80784, .84198, .87198),
    'snow': (.71726, .88392, .86468, .91870, .94952),
    'frost': (.61390, .79734, .88790, .89942, .93430),
    'fog': (.67474, .76050, .84378, .87260, .94500),
    'brightness': (.45140, .48502, .54048, .62166, .72440),
    'contrast': (.64548, .76150, .88874, .97760, .99270),
    'elastic_transform': (.52596, .70116, .55686, .64076, .80554),
    'pixelate': (.52218, .54620, .73728, .87092, .91262),
    'jpeg_compression': (.51002, .54718, .57294, .65458, .74778),
})
ALEXNET_CLEAN = .4348  # google-research/robustness_metrics, reports/imagenet_variants.py
# Means over the severities, four digits: clovaai/assembled-cnn, mce/eval_robustness.py
ALEXNET_HOLD_OUT = MappingProxyType({'speckle_noise': .8454, 'gaussian_blur': .7871, 'spatter': .7175,
                                     'saturate': .6583})
CORRUPTIONS = tuple(ALEXNET)
HOLD_OUT = tuple(ALEXNET_HOLD_OUT)
HENDRYCKS = ('elastic_transform', 'pixelate', 'frost')  # corruptions.variants has the authors' version of these


def make_condition(corruption: str, severity: int, **variant: Value) -> Condition:
    """Return the condition of a corruption. variant: further arguments; 'variant' is dropped outside HENDRYCKS."""
    if corruption not in HENDRYCKS:
        variant.pop('variant', None)
    return Condition(Spec.of(corruption, severity=severity, **variant))


def list_conditions(corruptions: Iterable[str] = CORRUPTIONS, severities: Iterable[int] = SEVERITIES, /,
                    **variant: Value) -> tuple[Condition, ...]:
    """Return the clean condition and every corruption at every severity. variant: arguments of each, e.g. jpeg=85."""
    severities = tuple(severities)
    return (CLEAN, *(make_condition(name, severity, **variant) for name in corruptions for severity in severities))


def has_alexnet(dataset: str) -> bool:
    """Return whether AlexNet's errors apply to a recorded dataset: ImageNet's images and their corruptions."""
    return Spec.parse(dataset).name.startswith('imagenet') and not is_shift(dataset)


def compute_ce(table: Table, corruption: str, **variant: Value) -> float:
    """Compute CE: the error summed over the severities, divided by AlexNet's."""
    return math.fsum(_get_errors(table, corruption, variant)) / _sum_alexnet_errors(corruption)


def compute_relative_ce(table: Table, corruption: str, **variant: Value) -> float:
    """Compute relative CE: as CE, with the clean errors subtracted on both sides."""
    clean = len(SEVERITIES) * table[CLEAN, ERROR]
    return ((math.fsum(_get_errors(table, corruption, variant)) - clean)
            / (_sum_alexnet_errors(corruption) - len(SEVERITIES) * ALEXNET_CLEAN))


def compute_mean_accuracy(table: Table, severity: int, corruptions: Sequence[str] = CORRUPTIONS, /,
                          **variant: Value) -> float:
    """Compute 1 - error, averaged over the corruptions at one severity."""
    return 1 - math.fsum(table[make_condition(name, severity, **variant), ERROR]
                         for name in corruptions) / len(corruptions)


def summarize(table: Table, **variant: Value) -> dict[str, float]:
    """Compute mCE, relative mCE, their 15 terms, and mean accuracies, in fractions: 0.767 is the 76.7 of a leaderboard.

    Without the clean error, relative mCE and its terms are omitted. A table of images other than ImageNet's has mean
    accuracies alone. Raises MissingMeasurement with every missing corruption and severity and the command that measures
    them.
    """
    require_measured(table, [(one, ERROR) for one in list_conditions(**variant)[1:]])
    accuracy = {severity: compute_mean_accuracy(table, severity, **variant) for severity in SEVERITIES}
    means = {'mean_accuracy': statistics.fmean(accuracy.values()),
             **{f'mean_accuracy(severity={severity})': value for severity, value in accuracy.items()}}
    if not has_alexnet(table.dataset):
        return means | ({'clean_accuracy': 1 - table[CLEAN, ERROR]} if (CLEAN, ERROR) in table else {})
    ce = {name: compute_ce(table, name, **variant) for name in CORRUPTIONS}
    summary = {'mCE': statistics.fmean(ce.values()), **means, **{f'CE({name})': value for name, value in ce.items()}}
    if (CLEAN, ERROR) not in table:
        return summary
    relative = {name: compute_relative_ce(table, name, **variant) for name in CORRUPTIONS}
    return {**summary, 'relative_mCE': statistics.fmean(relative.values()), 'clean_accuracy': 1 - table[CLEAN, ERROR],
            **{f'relative_CE({name})': value for name, value in relative.items()}}


def compute_intervals(table: Table, **variant: Value) -> dict[str, tuple[float, float]]:
    """Compute 95 % intervals of all values of `summarize`, which are weighted sums of the measured errors.

    All errors are from the same images; see compute_weighted_interval for the consequences.
    """
    require_measured(table, [(one, ERROR) for one in list_conditions(**variant)[1:]])
    ce = {name: 1 / _sum_alexnet_errors(name) for name in CORRUPTIONS}
    severities = {severity: compute_mean_accuracy_interval(table, CORRUPTIONS, [severity], **variant)
                  for severity in SEVERITIES}
    means = {'mean_accuracy': compute_mean_accuracy_interval(table, CORRUPTIONS, SEVERITIES, **variant),
             **{f'mean_accuracy(severity={severity})': interval for severity, interval in severities.items()}}
    if (CLEAN, ERROR) in table:
        clean = table.record((CLEAN, ERROR))
        means['clean_accuracy'] = compute_weighted_interval([(-1, clean.value, clean.count)], offset=1.)
    if not has_alexnet(table.dataset):
        return means
    found = {
        'mCE': _compute_interval(table, {name: weight / len(ce) for name, weight in ce.items()}, variant), **means,
        **{f'CE({name})': _compute_interval(table, {name: weight}, variant) for name, weight in ce.items()},
    }
    if (CLEAN, ERROR) not in table:
        return found
    above_clean = {name: 1 / (_sum_alexnet_errors(name) - len(SEVERITIES) * ALEXNET_CLEAN) for name in CORRUPTIONS}
    return {
        **found,
        'relative_mCE': _compute_interval(table, {name: weight / len(ce) for name, weight in above_clean.items()},
                                          variant, relative=True),
        **{f'relative_CE({name})': _compute_interval(table, {name: weight}, variant, relative=True)
           for name, weight in above_clean.items()},
    }


def compute_ce_interval(table: Table, corruption: str, **variant: Value) -> tuple[float, float]:
    """Compute the 95 % interval of compute_ce()."""
    require_measured(table, [(make_condition(corruption, severity, **variant), ERROR) for severity in SEVERITIES])
    return _compute_interval(table, {corruption: 1 / _sum_alexnet_errors(corruption)}, variant)


def compute_mean_accuracy_interval(table: Table, corruptions: Sequence[str], severities: Sequence[int], **variant: Value
                                   ) -> tuple[float, float]:
    """Compute the 95 % interval of 1 - error, averaged over some corruptions and severities."""
    records = [table.record((make_condition(name, severity, **variant), ERROR))
               for name in corruptions for severity in severities]
    return compute_weighted_interval([(-1 / len(records), one.value, one.count) for one in records], offset=1.)


def _compute_interval(table: Table, weights: dict[str, float], variant: dict[str, Value], *, relative: bool = False
                      ) -> tuple[float, float]:
    """Compute the interval of the sum of weight * error or, if `relative`, of weight * (error - clean error)."""
    records = {name: [table.record((make_condition(name, severity, **variant), ERROR)) for severity in SEVERITIES]
               for name in weights}
    terms = [(weight, one.value, one.count) for name, weight in weights.items() for one in records[name]]
    if relative:
        clean = table.record((CLEAN, ERROR))
        terms.append((-len(SEVERITIES) * math.fsum(weights.values()), clean.value, clean.count))
    return compute_weighted_interval(terms)


def require_measured(table: Table, keys: Iterable[Key]) -> None:
    """Raise MissingMeasurement for keys missing from `table`, with the command that measures them."""
    missing = [key for key in keys if key not in table]
    table.require(missing, command=build_command(table, missing))


def build_command(table: Table, keys: Iterable[Key], *, run: str | None = None) -> str:
    """Return the command that measures `keys`. run: command of the run that omitted them; by default only --model."""
    specs = [spec for spec in (Condition.parse(str(key[0])).corruption for key in keys) if spec is not None]
    if run is None:
        run = f'pit-downstream eval-imagenet-c {format_model_flag(table.model)}'
        qualities = {quality for spec in specs if isinstance(quality := spec.get('jpeg'), int)}
        run += f' --jpeg-quality {min(qualities)}' if qualities else ''
        run += ' --variant hendrycks' * any(spec.get('variant') is not None for spec in specs)
    names = dict.fromkeys(spec.name for spec in specs)
    severities = sorted({str(spec.get('severity')) for spec in specs})
    return f'{run} --corruptions {" ".join(names)} --severities {" ".join(severities)}' if specs else run


def _get_errors(table: Table, corruption: str, variant: dict[str, Value]) -> list[float]:
    keys = [(make_condition(corruption, severity, **variant), ERROR) for severity in SEVERITIES]
    require_measured(table, keys)
    return [table[key] for key in keys]


def _sum_alexnet_errors(corruption: str) -> float:
    if corruption in ALEXNET:
        return math.fsum(ALEXNET[corruption])
    if corruption in ALEXNET_HOLD_OUT:
        return len(SEVERITIES) * ALEXNET_HOLD_OUT[corruption]
    raise InputError(f'no error of AlexNet is published for {corruption!r}, so it has no CE; its errors are in the '
                     'table')


def format_table(table: Table, corruptions: Sequence[str], severities: Sequence[int], **variant: Value) -> str:
    """Return top-1 errors by corruption and severity with their mean and, on ImageNet, CE; '-' if missing."""
    rows = [['top-1 error', *map(str, severities), 'mean', 'CE']]
    if (CLEAN, ERROR) in table:
        rows.append(['clean', *[''] * len(severities), format_number(table[CLEAN, ERROR]), ''])
    for name in corruptions:
        keys = [(make_condition(name, severity, **variant), ERROR) for severity in severities]
        errors = [table[key] if key in table else None for key in keys]
        try:
            ce = compute_ce(table, name, **variant)
        except InputError:  # a severity is missing, or AlexNet's error is unknown
            ce = None
        rows.append([name, *map(format_number, [*errors, average_or_none(errors), ce])])
    return align_columns(rows if has_alexnet(table.dataset) else [row[:-1] for row in rows])


def format_summary(table: Table, corruptions: Sequence[str], severities: Sequence[int], *, run: str | None = None,
                   **variant: Value) -> str:
    """Return mCE, relative mCE and mean accuracies with 95 % intervals; no mCE on images other than ImageNet's.

    A sentence reports missing measurements instead. The mean accuracy over a subset of the conditions follows. A set
    without AlexNet's errors (ImageNet-C-bar, 3DCC) has only that mean. run: the command that measured the table.
    """
    lines = []
    summary: dict[str, float] | None
    intervals: dict[str, tuple[float, float]] | None
    try:
        summary, intervals = summarize(table, **variant), compute_intervals(table, **variant)
        shown = {name: name.replace('_', ' ') for name in ('mCE', 'relative_mCE', 'mean_accuracy')}
        shown |= {f'mean_accuracy(severity={severity})': f'at severity {severity}' for severity in SEVERITIES}
        lines = [_format_line(title, summary[name], intervals[name]) for name,
                 title in shown.items() if name in summary]
        if not has_alexnet(table.dataset):
            spec = Spec.parse(table.dataset)
            lines.append("no CE and mCE: AlexNet's errors are those on ImageNet, not on "
                         f'{spec.get("root") or spec.name}')
        elif 'relative_mCE' not in summary:
            lines.append(f'no relative mCE: {MissingMeasurement(table, [(CLEAN, ERROR)]).args[0]}')
    except MissingMeasurement as missing:
        if set(corruptions) & set(CORRUPTIONS):
            command = build_command(table, missing.keys, run=run)
            absent = 'mCE' if has_alexnet(table.dataset) else 'mean accuracy of all 75'
            lines = [f'no {absent}: {MissingMeasurement(table, missing.keys, command).args[0]}']
    if set(corruptions) != set(CORRUPTIONS) or set(severities) != set(SEVERITIES):
        mean, interval = _compute_subset_mean(table, corruptions, severities, variant)
        lines.append(_format_line(f'mean accuracy of the {len(corruptions) * len(severities)} above', mean, interval))
    return '\n'.join(lines)


def format_json(table: Table, corruptions: Sequence[str], severities: Sequence[int], **variant: Value) -> str:
    """Return {'model', 'dataset', 'summary', 'intervals', 'chosen', 'records'}.

    summary, intervals: null if a measurement is missing. chosen: the mean accuracy over these corruptions and
    severities, with its interval.
    """
    summary: dict[str, float] | None
    intervals: dict[str, tuple[float, float]] | None
    try:
        summary, intervals = summarize(table, **variant), compute_intervals(table, **variant)
    except MissingMeasurement:
        summary = intervals = None
    mean, interval = _compute_subset_mean(table, corruptions, severities, variant)
    chosen = {'corruptions': list(corruptions), 'severities': list(severities), 'mean_accuracy': mean,
              'interval': interval}
    rows = [make_row(record) for record in table.records if not is_content(record)]
    return json.dumps({'model': table.model, 'dataset': table.dataset, 'summary': summary, 'intervals': intervals,
                       'chosen': chosen, 'records': rows}, indent=1) + '\n'


def _format_line(name: str, value: float, interval: tuple[float, float]) -> str:
    return f'{name:13}  {format_number(value)}  (95 %: {format_number(interval[0])} to {format_number(interval[1])})'


def _compute_subset_mean(table: Table, corruptions: Sequence[str], severities: Sequence[int], variant: dict[str, Value]
            ) -> tuple[float, tuple[float, float]]:
    """Return the mean accuracy over corruptions and severities, and its interval."""
    accuracies = [compute_mean_accuracy(table, severity, corruptions, **variant) for severity in severities]
    return (math.fsum(accuracies) / len(accuracies),
            compute_mean_accuracy_interval(table, corruptions, severities, **variant))


BENCHMARKS.register('imagenet_c')(
    Benchmark('imagenet_c', dataset='imagenet', conditions=list_conditions(), metrics=METRICS, summarize=summarize))
