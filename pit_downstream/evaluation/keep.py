"""Measure what a store does not hold yet, and keep it there as it comes."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from ..core.condition import Condition
from ..core.contracts import Metric, Predictor
from ..core.provenance import provenance, write_provenance
from ..core.records import ResultStore, Table
from ..datasets.base import Samples
from .measure import measure_passes
from .ranks import from_first, rank


def keep_measuring(store: ResultStore, predictor: Predictor, samples: Samples, metrics: Sequence[Metric],
                   conditions: Iterable[Condition], *, seed: int = 0, **options: Any) -> Table:
    """The table of `predictor` on `samples`, in which at least `conditions` are measured.

    What `store` holds under these names and this seed is not measured again. Records are appended by rank 0 as they
    come, a pass at a time; runs.jsonl beside them says what each run was. options: of `measure_passes`.
    """
    conditions = list(conditions)
    done = from_first(store.done(predictor.name, samples.name, seed) if rank() == 0 else None)
    wanted = {(str(condition), metric.name) for condition in conditions for metric in metrics}
    if not wanted <= done:
        note_run(store, predictor, seed)
    for records in measure_passes(predictor, samples, metrics, conditions, seed=seed, done=done, **options):
        if rank() == 0:
            store.add(*records)
    table = store.table(predictor.name, samples.name, seed=seed) if rank() == 0 else None
    return from_first(table)


def note_run(store: ResultStore, predictor: Predictor, seed: int) -> None:
    """Say in runs.jsonl beside the store what this run is; rank 0 does."""
    if rank() == 0:
        write_provenance(store.path.with_name('runs.jsonl'), provenance(
            device=str(getattr(predictor, 'device', 'cpu')), seed=seed, argv=sys.argv))
