"""ImageNet-C (Hendrycks & Dietterich 2019): top-1 error under corruptions, relative to AlexNet's."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from pit_downstream.benchmarks.base import Benchmark, describe_missing
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.intervals import Estimate, compute_weighted_interval
from pit_downstream.results.layout import Layout, average, make_sheet
from pit_downstream.results.records import Record, Table
from pit_downstream.results.results import Gap
from pit_downstream.results.tables import Sheet, rate, words
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Spec, Value

if TYPE_CHECKING:
    from pit_downstream.results.results import Results

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


@BENCHMARKS.register('imagenet_c')
@dataclass(frozen=True)
class ImageNetC(Benchmark):
    """Errors under corruptions at several severities, mCE and mean accuracy.

    Attributes:
        corruptions: Names of corruptions.
        severities: Severities in 1..5.
        variant: 'hendrycks' for ImageNet-C's elastic_transform, pixelate and frost, which differ from those of
            imagecorruptions.
        jpeg_quality: JPEG quality at which corrupted images are saved and read back, as the published files were (85).
    """

    name = 'imagenet_c'
    title = 'ImageNet-C'
    about = ('Top-1 error in percent under fifteen corruptions at five severities (Hendrycks & Dietterich 2019). CE is '
             'the error summed over the severities, divided by that of the reference.')
    layout = Layout(rows='corruption', columns='severity', value=ERROR)

    corruptions: tuple[str, ...] = field(default=CORRUPTIONS, metadata={
        'help': 'names of corruptions, benchmark (the 15), extra (the 4 hold-out corruptions) or all',
        'default': 'benchmark', 'metavar': 'NAME'})
    severities: tuple[int, ...] = field(default=SEVERITIES, metadata={'help': 'severities', 'metavar': '1..5'})
    variant: str | None = field(default=None, metadata={
        'help': "use ImageNet-C's elastic_transform, pixelate and frost, which differ from those of imagecorruptions; "
        'recorded with the results', 'choices': ['hendrycks'], 'default': 'imagecorruptions'})
    jpeg_quality: int | None = field(default=None, metadata={
        'help': 'JPEG quality at which every corrupted image is saved and read back; the published files have 85; '
        'recorded with the results', 'default': 'no JPEG', 'metavar': 'Q'})

    def __post_init__(self) -> None:
        check_severities(self.severities)
        if self.jpeg_quality is not None and self.jpeg_quality not in range(1, 101):
            raise InputError(f'jpeg_quality must be in 1..100, got {self.jpeg_quality}. The published files have 85.')

    @property
    def arguments(self) -> dict[str, Value]:
        """Arguments of every corruption besides the severity."""
        arguments: dict[str, Value] = {'jpeg': self.jpeg_quality} if self.jpeg_quality else {}
        return arguments | ({'variant': self.variant} if self.variant else {})

    def conditions(self) -> tuple[Condition, ...]:
        return list_conditions(self.corruptions, self.severities, **self.arguments)

    def metric_names(self, task: str) -> tuple[str, ...]:
        return METRICS

    def required(self) -> tuple[tuple[Condition, str], ...]:
        """Return what mCE needs: all severities of the 15 corruptions, if one of these is selected."""
        if not set(self.corruptions) & set(CORRUPTIONS):
            return super().required()
        return tuple((condition, ERROR) for condition in list_conditions(**self.arguments))

    def summarize(self, results: 'Results') -> dict[str, Estimate]:
        """Return mCE, relative mCE, their terms, and mean accuracies with 95 % intervals, in fractions.

        0.767 is the 76.7 of a leaderboard. Without the clean error, relative mCE and its terms are omitted. A table of
        images other than ImageNet's has mean accuracies alone. Raises MissingMeasurement with every missing corruption
        and severity.
        """
        return summarize(results.table, **self.arguments)

    def tabulate(self, results: 'Results') -> list[Sheet]:
        """Return the errors by severity with mean and, on ImageNet, CE; mCE and mean accuracies."""
        sheet = make_sheet(self.name, results, self.layout, ERROR)
        if has_alexnet(results.table.dataset):
            ce = {row[0].text: find_ce(results.table, row[0].text, self.arguments) for row in sheet.rows}
            cells = [words('') if row[0].text == 'clean' else rate(ce[row[0].text]) for row in sheet.rows]
            if any(estimate is not None for estimate in ce.values()):
                rows = tuple((*row, cell) for row, cell in zip(sheet.rows, cells, strict=True))
                sheet = replace(sheet, columns=(*sheet.columns, 'CE'), rows=rows)
        return [sheet, *self.tabulate_summary(results)]

    def tabulate_summary(self, results: 'Results') -> list[Sheet]:
        table, rows = results.table, []
        if not self._find_missing(table):
            summary = self.summarize(results)
            shown = {name: name.replace('_', ' ') for name in ('mCE', 'relative_mCE', 'mean_accuracy')}
            shown |= {f'mean_accuracy(severity={severity})': f'at severity {severity}' for severity in SEVERITIES}
            rows = [(words(title), rate(summary[name])) for name, title in shown.items() if name in summary]
        if set(self.corruptions) != set(CORRUPTIONS) or set(self.severities) != set(SEVERITIES):
            keys = [(condition, ERROR) for condition in self.conditions()[1:]]
            if keys and all(key in table for key in keys):
                mean = _average_accuracy([table.record(key) for key in keys])
                rows.append((words(f'mean accuracy of the {len(keys)} above'), rate(mean)))
        if not rows:
            return []
        caption = f'{self.title}: {results.subject}, in percent with 95 % intervals.'
        if not has_alexnet(table.dataset):
            caption += " No CE and mCE: AlexNet's errors are those on ImageNet."
        return [Sheet(f'{self.name}_summary', caption, ('', 'value'), tuple(rows))]

    def find_gaps(self, results: 'Results') -> list[Gap]:
        """Return what prevents an mCE, in one line."""
        absent = self._find_missing(results.table)
        table = results.table
        gaps = []
        if absent and set(self.corruptions) & set(CORRUPTIONS):
            lost = 'mCE' if has_alexnet(table.dataset) else 'mean accuracy of all 75'
            gaps.append(Gap(f'no {lost}: {describe_missing(absent)} not measured', self.build_command(results, absent)))
        elif not absent and (CLEAN, ERROR) not in table and has_alexnet(table.dataset):
            gaps.append(Gap('no relative mCE: clean images not measured', self.build_command(results, [CLEAN])))
        others = [condition for condition in self.conditions()[1:] if (condition, ERROR) not in table
                  and condition not in absent]
        if others:
            gaps.append(Gap(f'{describe_missing(others)} not measured', self.build_command(results, others)))
        return gaps

    def choose_flags(self, conditions: Iterable[Condition]) -> Mapping[str, Sequence[str]]:
        return choose_corruption_flags(conditions)

    @property
    def tool(self) -> str:
        return 'eval-imagenet-c'

    def _find_missing(self, table: Table) -> list[Condition]:
        """Return the corruptions of the benchmark that are missing for mCE."""
        return [condition for condition in list_conditions(**self.arguments)[1:] if (condition, ERROR) not in table]


def make_condition(corruption: str, severity: int, **arguments: Value) -> Condition:
    """Return the condition of a corruption. arguments: further ones; 'variant' is dropped outside HENDRYCKS."""
    if corruption not in HENDRYCKS:
        arguments.pop('variant', None)
    return Condition(Spec.of(corruption, severity=severity, **arguments))


def list_conditions(corruptions: Iterable[str] = CORRUPTIONS, severities: Iterable[int] = SEVERITIES, /,
                    **arguments: Value) -> tuple[Condition, ...]:
    """Return the clean condition and every corruption at every severity. arguments: of each, such as jpeg=85."""
    severities = tuple(severities)
    return (CLEAN, *(make_condition(name, severity, **arguments) for name in corruptions for severity in severities))


def is_corrupted(condition: Condition) -> bool:
    """Return whether the condition is a corruption with a severity, without an attack."""
    return condition.attack is None and condition.corruption is not None and (
        condition.corruption.get('severity') in SEVERITIES)


def list_variants(corruptions: Iterable[Spec]) -> list[tuple[tuple[str, Value], ...]]:
    """Return the arguments of corruptions besides severity: (), (('jpeg', 85),), (('variant', 'hendrycks'),) ...

    Only HENDRYCKS have variant='hendrycks'. The others belong to both variants.
    """
    by_base: dict[tuple[tuple[str, Value], ...], list[Spec]] = {}
    for spec in corruptions:
        by_base.setdefault(spec.without('severity', 'variant').kwargs, []).append(spec)
    variants: list[tuple[tuple[str, Value], ...]] = []
    for base, specs in by_base.items():
        distinctive = [spec for spec in specs if spec.name in HENDRYCKS] or specs
        names = dict.fromkeys(spec.get('variant') for spec in distinctive)
        variants += [(*base, ('variant', name)) if name else base for name in names]
    return variants


def check_severities(severities: Sequence[int]) -> None:
    """Raise InputError for a severity outside of 1..5."""
    wrong = [severity for severity in severities if severity not in SEVERITIES]
    if wrong or not severities:
        raise InputError(f'severities must be in 1..5, got {wrong or "none"}. Clean images are measured without a '
                         'severity.')


def choose_corruption_flags(conditions: Iterable[Condition]) -> dict[str, list[str]]:
    """Return --corruptions and --severities of conditions; clean ones need no flag."""
    specs = [condition.corruption for condition in conditions if condition.corruption is not None]
    if not specs:
        return {}
    return {'--corruptions': list(dict.fromkeys(spec.name for spec in specs)),
            '--severities': sorted({str(spec.get('severity')) for spec in specs})}


def has_alexnet(dataset: str) -> bool:
    """Return whether AlexNet's errors apply to a recorded dataset: ImageNet's images and their corruptions."""
    return Spec.parse(dataset).name in ('imagenet', 'imagenet_c')


def compute_ce(table: Table, corruption: str, **arguments: Value) -> Estimate:
    """Compute CE with its interval: the error summed over the severities, divided by AlexNet's."""
    return _sum_errors(table, {corruption: _sum_alexnet_errors(corruption)}, arguments)


def find_ce(table: Table, corruption: str, arguments: Mapping[str, Value], reference: Table | None = None
            ) -> Estimate | None:
    """Return CE or, without an interval, the quotient of the errors to those of a reference other than AlexNet.

    Returns None if a severity is missing, AlexNet's error is unknown, or the reference has no errors.
    """
    try:
        if reference is None:
            return compute_ce(table, corruption, **arguments) if has_alexnet(table.dataset) else None
        errors, others = (math.fsum(one[make_condition(corruption, severity, **arguments), ERROR]
                                    for severity in SEVERITIES) for one in (table, reference))
        return Estimate(errors / others)
    except (InputError, ZeroDivisionError):
        return None


def compute_relative_ce(table: Table, corruption: str, **arguments: Value) -> Estimate:
    """Compute relative CE: as CE, with the clean errors subtracted on both sides."""
    divisor = _sum_alexnet_errors(corruption) - len(SEVERITIES) * ALEXNET_CLEAN
    return _sum_errors(table, {corruption: divisor}, arguments, is_relative=True)


def compute_mean_accuracy(table: Table, corruptions: Sequence[str] = CORRUPTIONS,
                          severities: Sequence[int] = SEVERITIES, /, **arguments: Value) -> Estimate:
    """Compute 1 - error, averaged over corruptions and severities, with its interval."""
    keys = [(make_condition(name, severity, **arguments), ERROR) for name in corruptions for severity in severities]
    table.require(keys)
    return _average_accuracy([table.record(key) for key in keys])


def summarize(table: Table, **arguments: Value) -> dict[str, Estimate]:
    """Return the summary of a table, see ImageNetC.summarize."""
    table.require([(condition, ERROR) for condition in list_conditions(**arguments)[1:]])
    has_clean, is_imagenet = (CLEAN, ERROR) in table, has_alexnet(table.dataset)
    by_severity = {severity: compute_mean_accuracy(table, CORRUPTIONS, [severity], **arguments)
                   for severity in SEVERITIES}
    overall = compute_mean_accuracy(table, **arguments)
    means = {'mean_accuracy': Estimate(statistics.fmean(one.value for one in by_severity.values()), overall.low,
                                       overall.high),
             **{f'mean_accuracy(severity={severity})': one for severity, one in by_severity.items()}}
    clean = {}
    if has_clean:
        record = table.record((CLEAN, ERROR))
        low, high = compute_weighted_interval([(-1, record.value, record.count)], offset=1.)
        clean = {'clean_accuracy': Estimate(1 - record.value, low, high, record.count)}
    if not is_imagenet:
        return means | clean
    ce = {name: compute_ce(table, name, **arguments) for name in CORRUPTIONS}
    divisors = {name: _sum_alexnet_errors(name) * len(ce) for name in CORRUPTIONS}
    mce = _sum_errors(table, divisors, arguments)
    summary = {'mCE': Estimate(statistics.fmean(one.value for one in ce.values()), mce.low, mce.high), **means,
               **{f'CE({name})': one for name, one in ce.items()}}
    if not has_clean:
        return summary
    relative = {name: compute_relative_ce(table, name, **arguments) for name in CORRUPTIONS}
    divisors = {name: (_sum_alexnet_errors(name) - len(SEVERITIES) * ALEXNET_CLEAN) * len(ce) for name in CORRUPTIONS}
    whole = _sum_errors(table, divisors, arguments, is_relative=True)
    return {**summary, **clean,
            'relative_mCE': Estimate(statistics.fmean(one.value for one in relative.values()), whole.low, whole.high),
            **{f'relative_CE({name})': one for name, one in relative.items()}}


def _sum_errors(table: Table, divisors: Mapping[str, float], arguments: dict[str, Value], *, is_relative: bool = False
                ) -> Estimate:
    """Return the sum over the severities of error / divisor or, if `is_relative`, of (error - clean error) / divisor.

    All errors are from the same images, see compute_weighted_interval.
    """
    keys = {name: [(make_condition(name, severity, **arguments), ERROR) for severity in SEVERITIES]
            for name in divisors}
    table.require([key for several in keys.values() for key in several])
    records = {name: [table.record(key) for key in several] for name, several in keys.items()}
    terms = [(1 / divisor, one.value, one.count) for name, divisor in divisors.items() for one in records[name]]
    clean = 0.
    if is_relative:
        record = table.record((CLEAN, ERROR))
        clean = len(SEVERITIES) * record.value
        terms.append((-len(SEVERITIES) * math.fsum(1 / divisor for divisor in divisors.values()), record.value,
                      record.count))
    value = math.fsum((math.fsum(one.value for one in records[name]) - clean) / divisor
                      for name, divisor in divisors.items())
    return Estimate(value, *compute_weighted_interval(terms))


def _average_accuracy(records: Sequence[Record]) -> Estimate:
    mean = average([record.value for record in records])
    assert mean is not None
    terms = [(-1 / len(records), record.value, record.count) for record in records]
    return Estimate(1 - mean, *compute_weighted_interval(terms, offset=1.))


def _sum_alexnet_errors(corruption: str) -> float:
    if corruption in ALEXNET:
        return math.fsum(ALEXNET[corruption])
    if corruption in ALEXNET_HOLD_OUT:
        return len(SEVERITIES) * ALEXNET_HOLD_OUT[corruption]
    raise InputError(f'{corruption!r} has no CE: no error of AlexNet is published for it. Its errors are in the table.')
