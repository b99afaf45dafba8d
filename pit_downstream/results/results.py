"""Results of a benchmark: a tidy table, a summary, tables to print, and the measurements that are missing."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pit_downstream.results.condition import Condition
from pit_downstream.results.labels import label_dataset, label_model
from pit_downstream.results.intervals import Difference, Estimate, compute_wilson_interval
from pit_downstream.results.records import SCHEMA, MissingMeasurement, Record, Table, get_weights_digest
from pit_downstream.results.tables import Sheet, render_latex, render_markdown, render_text
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.path_checks import write_atomic
from pit_downstream.utils.spec import Spec, format_value

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

    from pit_downstream.benchmarks.base import Benchmark

COLUMNS = ('benchmark', 'model', 'weights_digest', 'preprocessing', 'precision', 'dataset', 'data_digest', 'condition',
           'corruption', 'variant', 'severity', 'attack', 'norm', 'epsilon', 'layer', 'class', 'metric', 'value', 'low',
           'high', 'count', 'unreadable', 'seed', 'schema')
VIEW = ('size', 'resize', 'interpolation', 'mode', 'border', 'view')  # arguments of a view in the name of a dataset
_PREPROCESSING = ('mean', 'std')  # arguments of a model's name

# Returns per-image values (N,) in the order of the dataset, None if they were not stored: (dataset, condition, metric)
OutcomeReader = Callable[[str, Condition, str], 'np.ndarray | None']


@dataclass(frozen=True)
class Gap:
    """Missing measurement, and the command that measures it."""

    what: str
    command: str

    def __str__(self) -> str:
        return f'{self.what}. To measure it: {self.command}' if self.command else f'{self.what}.'


class Results:
    """Results of one model in one benchmark.

    Args:
        benchmark: The benchmark, which defines summary and tables.
        tables: Records by short name of the dataset. Most benchmarks have one dataset, named 'data'.
        read_outcomes: Returns per-image values, for differences paired by image.
        argv: Command of the run, on which commands for gaps are based.
        header: Lines above the tables: preprocessing, source of AP.
        warnings: Reasons to doubt the numbers.
    """

    def __init__(self, benchmark: 'Benchmark', tables: Mapping[str, Table], *,
                 read_outcomes: OutcomeReader | None = None, argv: Sequence[str] = (), header: Sequence[str] = (),
                 warnings: Sequence[str] = ()):
        self.benchmark, self.tables, self.argv = benchmark, dict(tables), tuple(argv)
        self._read_outcomes = read_outcomes
        self.header, self.warnings = tuple(header), tuple(warnings)

    @property
    def table(self) -> Table:
        """Records of the first dataset, the only one of most benchmarks."""
        return next(iter(self.tables.values()))

    @property
    def model(self) -> str:
        return self.table.model

    @property
    def label(self) -> str:
        """Short name of the model, as in captions."""
        return label_model(self.model)

    @property
    def subject(self) -> str:
        """Text such as 'pit_s on imagenet, 1000 of 50000 images', as in captions."""
        return f'{self.label} on {label_dataset(self.table.dataset)}'

    @property
    def records(self) -> list[Record]:
        """All records, each once: two names may be of one dataset."""
        return list(dict.fromkeys(record for table in self.tables.values() for record in table.records))

    @cached_property
    def frame(self) -> 'pd.DataFrame':
        """One row per number, with COLUMNS. `low` and `high` are the ends of the 95 % interval of an error."""
        import pandas as pd
        return pd.DataFrame([make_row(record) for record in self.records], columns=list(COLUMNS))

    @property
    def summary(self) -> dict[str, Estimate]:
        """Summary of the benchmark.

        Raises MissingMeasurement, with the command that measures it, if a number that it needs is missing.
        """
        try:
            return self.benchmark.summarize(self)
        except MissingMeasurement as error:
            command = error.command or next((gap.command for gap in self.gaps), '')
            raise MissingMeasurement(error.table, error.keys, command) from None

    @property
    def sheets(self) -> list[Sheet]:
        """Tables in the layout of the benchmark."""
        return self.benchmark.tabulate(self)

    @property
    def gaps(self) -> list[Gap]:
        """Missing measurements with the commands that measure them."""
        return self.benchmark.find_gaps(self)

    def get_outcomes(self, condition: Condition, metric: str, dataset: str | None = None) -> 'np.ndarray | None':
        """Return per-image values (N,) in the order of the dataset, NaN for an image without one.

        Returns None if they were not stored, as for a record without its outcomes.
        """
        table = self.table if dataset is None else self.tables[dataset]
        return self._read_outcomes(table.dataset, condition, metric) if self._read_outcomes else None

    def average_outcomes(self, records: Sequence[Record]) -> 'np.ndarray | None':
        """Return the mean of several records per image, float (N,), None if one of them is without outcomes."""
        import numpy as np
        arrays: list[np.ndarray] = []
        for record in records:
            dataset = next(name for name, table in self.tables.items() if table.dataset == record.dataset)
            name = f'{record.metric}@{record.layer}' if record.layer else record.metric
            values = None if record.class_name else self.get_outcomes(Condition.parse(record.condition), name, dataset)
            if values is None or len(values) != len([*arrays, values][0]):
                return None
            arrays.append(values)
        return np.mean(arrays, axis=0)

    def __str__(self) -> str:
        parts = ['\n'.join([f'{self.model} on {self.table.dataset}, {self._count_images()}', *self.header])]
        parts += [render_text(sheet) for sheet in self.sheets]
        parts += ['\n'.join(map(str, self.gaps))] if self.gaps else []
        parts += [f'warning: {text}' for text in self.warnings]
        return '\n\n'.join(parts)

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return `frame` as CSV, and write it to `path`."""
        return _write(path, self.frame.to_csv(index=False, lineterminator='\n'))

    def to_json(self, path: str | Path | None = None) -> str:
        """Return {'schema', 'benchmark', 'model', 'summary', 'gaps', 'warnings', 'records'}, and write it to `path`.

        summary: {name: {'value', 'low', 'high', 'count'}}, null if a measurement is missing. records: rows of `frame`.
        """
        try:
            summary: dict[str, Any] | None = {name: asdict(estimate) for name, estimate in self.summary.items()}
        except MissingMeasurement:
            summary = None
        return _write(path, json.dumps({
            'schema': SCHEMA, 'benchmark': self.benchmark.name, 'model': self.model, 'summary': summary,
            'gaps': [asdict(gap) for gap in self.gaps], 'warnings': list(self.warnings),
            'records': [make_row(record) for record in self.records]}, indent=1) + '\n')

    def to_markdown(self, path: str | Path | None = None) -> str:
        """Return the tables in Markdown, and write them to `path`."""
        return _write(path, '\n'.join(map(render_markdown, self.sheets)))

    def to_latex(self, path: str | Path | None = None, *, others: 'Iterable[Results]' = ()) -> str:
        """Return the tables in LaTeX (booktabs), and write them to `path`.

        With the results of `others`, models are the columns of one table, and the best number of a row is in bold.
        """
        others = list(others)
        sheets = [self.benchmark.compare_models([self, *others])] if others else self.sheets
        return _write(path, '\n'.join(map(render_latex, sheets)))

    def plot(self) -> 'Figure':
        """Draw the numbers in the layout of the benchmark. Needs the extra `report`."""
        from pit_downstream.results.plotting import plot_layout
        return plot_layout(self)

    def _count_images(self) -> str:
        counts = sorted({record.count for record in self.table.records}) or [0]
        return f'{" to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))} image{"s" * (counts[-1] != 1)}'


def compare(first: Results, second: Results) -> 'pd.DataFrame':
    """Return the differences of two models under every condition that both results have.

    Accuracies that were measured on the same images, and whose per-image outcomes are stored, are paired by image: the
    interval is that of Bonett & Price (2012), p is that of McNemar's exact test. Other intervals add those of both
    models, which is wider than necessary.

    Returns:
        A frame with the columns dataset, condition, metric, layer, class, first, second, difference, low, high, p,
        count and paired. difference: second - first; for errors that of the accuracies, so above zero `second` is
        better.

    Raises:
        InputError: The two have no condition on the same images in common, or a condition of other images, or other
            seeds.
    """
    import pandas as pd
    rows = []
    for name in first.tables:
        if name not in second.tables or not have_same_images(first.tables[name], second.tables[name]):
            continue
        for record in first.tables[name].records:
            key = (record.condition, record.metric, record.layer, record.class_name)
            if key not in second.tables[name]:
                continue
            other = second.tables[name].record(key)
            if record.seed != other.seed:
                raise InputError(f'{first.model} was evaluated with the seed {record.seed} and {second.model} with '
                                 f'{other.seed}. Evaluate both with one seed.')
            if not have_same_content(record, other):
                raise InputError(f'{first.model} and {second.model} were measured on different images under '
                                 f'{record.condition}: their digests are {record.data_digest} and {other.data_digest}. '
                                 'Evaluate both on the same images.')
            difference = compare_records(first, second, [record], [other])
            rows.append({'dataset': name, 'condition': record.condition, 'metric': record.metric, 'layer': record.layer,
                         'class': record.class_name, 'first': record.value, 'second': other.value, **asdict(difference),
                         'paired': difference.count is not None})
    if not rows:
        raise InputError(f'the results of {first.model} and {second.model} have no condition on the same images in '
                         'common. Evaluate both on the same data with the same --limit.')
    return pd.DataFrame(rows).rename(columns={'value': 'difference'})


def compare_records(first: Results, second: Results, records: Sequence[Record], others: Sequence[Record]) -> Difference:
    """Return the difference of two means over records, paired by image if all of them have their outcomes.

    Args:
        records, others: Of the first and of the second results: of one condition each, or of several.
    """
    from pit_downstream.results.intervals import (
        compare_intervals,
        compare_paired,
        compare_paired_values,
        compute_weighted_interval,
    )
    before, after = first.average_outcomes(records), second.average_outcomes(others)
    is_error = records[0].metric.endswith('_error')
    if before is not None and after is not None and len(before) == len(after):
        import numpy as np
        known = np.isfinite(before) & np.isfinite(after)
        if all(known.sum() == record.count for record in (*records, *others)):
            before, after = before[known], after[known]
            if is_error and len(records) == len(others) == 1:
                return compare_paired(before == 0, after == 0)
            return compare_paired_values(1 - before, 1 - after) if is_error else compare_paired_values(before, after)
    change = average_records(others) - average_records(records)
    if is_error:
        interval, other = (compute_weighted_interval(
            [(-1 / len(several), record.value, record.count) for record in several], offset=1.)
            for several in (records, others))
        return compare_intervals(interval, other, -change)
    return Difference(change, float('nan'), float('nan'))


def average_records(records: Sequence[Record]) -> float:
    """Return the mean value of records."""
    return math.fsum(record.value for record in records) / len(records)


def have_same_content(record: Record, other: Record) -> bool:
    """Return whether two records of one dataset are of the same images: their digests, if any, are equal."""
    return record.data_digest == other.data_digest or not (record.data_digest and other.data_digest)


def have_same_images(first: Table, second: Table) -> bool:
    """Return whether two tables are of the same images in one order. Their preprocessing may differ."""
    return get_image_key(first.dataset) == get_image_key(second.dataset)


def get_image_key(dataset: str) -> str:
    """Return the name of a dataset without its view, which is equal for the same images."""
    return str(Spec.parse(dataset).without(*VIEW, *(f'clean_{key}' for key in VIEW)))


def make_row(record: Record) -> dict[str, Any]:
    """Return the row of a record in `Results.frame`. Missing entries are ''."""
    condition = Condition.parse(record.condition)
    corruption, attack = condition.corruption, condition.attack
    model, dataset = (Spec.parse(text) for text in (record.model, record.dataset))
    low, high = compute_wilson_interval(record.value, record.count) if record.metric.endswith('_error') else ('', '')
    preprocessing = [f'{key}={format_value(spec.get(key))}' for spec, keys in ((dataset, VIEW), (model, _PREPROCESSING))
                     for key in keys if spec.get(key) is not None]
    search = model.get('search')
    return {
        'benchmark': record.benchmark, 'model': record.model, 'weights_digest': get_weights_digest(record.model),
        'preprocessing': ', '.join(preprocessing),
        'precision': model.get('amp') or (f'{search} (search of attacks)' if search else 'float32'),
        'dataset': record.dataset, 'data_digest': record.data_digest or dataset.get('files') or '',
        'condition': record.condition, 'corruption': corruption.name if corruption else '',
        'variant': ', '.join(f'{key}={format_value(value)}' for key, value in corruption.kwargs if key != 'severity')
        if corruption else '', 'severity': corruption.get('severity', '') if corruption else '',
        'attack': str(attack.without('norm', 'epsilon')) if attack else '',
        'norm': attack.get('norm', 'Linf') if attack else '', 'epsilon': format_epsilon(attack) if attack else '',
        'layer': record.layer, 'class': record.class_name, 'metric': record.metric, 'value': record.value, 'low': low,
        'high': high, 'count': record.count, 'unreadable': record.unreadable, 'seed': record.seed, 'schema': SCHEMA}


def parse_row(row: Mapping[str, Any]) -> Record:
    """Return the record of a row of `Results.frame`."""
    names = ('model', 'dataset', 'condition', 'metric', 'value', 'count', 'seed', 'layer', 'benchmark', 'data_digest',
             'unreadable')
    return Record(**{name: row[name] for name in names}, class_name=row['class'])


def format_epsilon(attack: Spec) -> str:
    """Return the epsilon of an attack as written, such as '8/255', '' for an attack without one."""
    epsilon = attack.get('epsilon')
    return '' if epsilon is None else format_value(epsilon)


def get_epsilon(attack: Spec | None) -> float | None:
    """Return the epsilon of an attack as a number, None without one."""
    epsilon = attack.get('epsilon') if attack else None
    is_number = isinstance(epsilon, (int, float, Fraction)) and not isinstance(epsilon, bool)
    return float(epsilon) if is_number else None  # type: ignore[arg-type]


def _write(path: str | Path | None, text: str) -> str:
    if path:
        write_atomic(Path(path), text)
    return text
