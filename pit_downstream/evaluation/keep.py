"""Measure missing results of a store and save them as they arrive."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any, cast

from pit_downstream.results.condition import Condition
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Metric, Predictor
from pit_downstream.utils.provenance import collect_provenance, write_provenance
from pit_downstream.results.records import CONTENT, Record, ResultStore, Table, is_content
from pit_downstream.utils.spec import Spec
from pit_downstream.datasets.base import ImageFolderSamples, Samples
from pit_downstream.evaluation.evaluator import measure_passes
from pit_downstream.evaluation.distributed import broadcast, rank, raise_on_all_ranks


def keep_measuring(store: ResultStore, predictor: Predictor, samples: Samples, metrics: Sequence[Metric],
                   conditions: Iterable[Condition], *, seed: int = 0, **options: Any) -> Table:
    """Measure `conditions` and return the table of `predictor` on `samples`.

    Results already in `store` under these names and this seed are not measured again. Rank 0 appends the records after
    each pass and a description of each run to runs.jsonl beside them. For a condition with images on disk, a record
    stores the digest of their content. `options` are those of `measure_passes`. Raises InputError if that content
    differs from the images measured before.
    """
    conditions = list(conditions)
    done = broadcast(store.list_measured(predictor.name, samples.name, seed) if rank() == 0 else None)
    contents = _contents(store, predictor, samples, conditions, seed)
    wanted = {(str(condition), metric.name) for condition in conditions for metric in metrics}
    if not wanted <= done:
        log_run(store, predictor, seed)
    for records in measure_passes(predictor, samples, metrics, conditions, seed=seed, done=done, **options):
        if rank() == 0:
            store.add(*dict.fromkeys(contents[record.condition] for record in records if record.condition in contents),
                      *records)
    table = store.table(predictor.name, samples.name, seed=seed) if rank() == 0 else None
    return broadcast(table)


def _contents(store: ResultStore, predictor: Predictor, samples: Samples, conditions: Iterable[Condition], seed: int
              ) -> dict[str, Record]:
    """Return a record of the content digest of each condition with separate image files."""
    sources = {str(condition): samples.at(condition)[0] for condition in conditions}
    separate = {condition: cast(ImageFolderSamples, source) for condition, source in sources.items()
                if source is not samples}
    if not separate:
        return {}
    table = broadcast(store.table(predictor.name, samples.name, seed=seed) if rank() == 0 else None)
    before = {record.condition: str(Spec.parse(record.metric).get('digest')) for record in table.records
              if is_content(record)}
    contents: dict[str, Record] = {}
    refusal: InputError | None = None
    for condition, source in separate.items():
        metric = str(Spec.of(CONTENT, digest=source.files))
        contents[condition] = Record(predictor.name, samples.name, condition, metric, 1., len(source), seed)
        if before.get(condition, source.files) != source.files:
            refusal = refusal or InputError(
                f'the images of {condition} in {source.root} are not those that were measured: their content has the '
                f'digest {source.files}, recorded is {before[condition]}. Use another --output-dir, or another '
                '--corrupted-name NAME.')
    raise_on_all_ranks(refusal)
    return {condition: record for condition, record in contents.items() if condition not in before}


def log_run(store: ResultStore, predictor: Predictor, seed: int) -> None:
    """Append the provenance of this run to runs.jsonl beside the store, on rank 0."""
    if rank() == 0:
        write_provenance(store.path.with_name('runs.jsonl'), collect_provenance(
            device=str(getattr(predictor, 'device', 'cpu')), seed=seed, argv=sys.argv))
