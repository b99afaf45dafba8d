"""Plan of an evaluation: conditions, images, and estimates of time and disk space from a few images."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pit_downstream.attacks.base import build_attack
from pit_downstream.evaluation.attacking import CountingPredictor, get_attack
from pit_downstream.evaluation.corrupting import apply_corruption
from pit_downstream.evaluation.data_loading import RawBatch, load_blocks
from pit_downstream.evaluation.distributed import world
from pit_downstream.evaluation.evaluator import ConditionGroup, Evaluator
from pit_downstream.evaluation.progress import format_seconds
from pit_downstream.results.outcomes import Entry, format_line
from pit_downstream.utils.rng import BatchRng

NUM_IMAGES = 4  # timed


def describe_plan(evaluator: Evaluator) -> Iterator[str]:
    """Yield lines on the conditions that remain, their images, and estimates of time and disk space.

    Each group of conditions is timed on a few images. An attack runs for one step; its time is that of a step times its
    steps, restarts and targets, an upper bound, since images leave the batch when they are fooled.
    """
    pending = evaluator.list_pending()
    yield (f'{evaluator.predictor.name} on {evaluator.samples.name}: {len(pending)} of {len(evaluator.conditions)} '
           f'conditions remain, {len(evaluator.samples)} images each')
    seconds = size = 0.
    for group in evaluator.groups:
        work = [pair for pair in group.work if pair[0] in pending]
        if not work:
            continue
        images = len(evaluator.sources[group.source])
        per_image, entry = _time_group(evaluator, replace(group, work=tuple(work)))
        seconds += per_image * images
        size += entry * images * len(work)
        yield (f'  {group.title}: {len(work)} condition{"s" * (len(work) != 1)}, '
               f'{"at most " * group.is_attack}about {format_seconds(per_image * images)}')
    processes = f' in {world()} processes' if world() > 1 else ''
    yield f'time: about {format_seconds(seconds / world())}{processes}; disk: about {max(size / 1e6, .01):.3g} MB'


def _time_group(evaluator: Evaluator, group: ConditionGroup) -> tuple[float, float]:
    """Return the seconds per image under all conditions of a group, and the bytes per image and condition."""
    count = min(NUM_IMAGES, len(evaluator.sources[group.source]))
    block = next(load_blocks(evaluator.sources, [(group.source, list(range(count)))], batch_size=count, workers=0))
    if not block.batches:
        return 0., 0.
    batch = block.batches[0].to(evaluator.device)
    evaluator.measure(batch, group)  # warm up
    start = time.perf_counter()
    values = evaluator.measure(batch, group)
    elapsed = (time.perf_counter() - start) / len(batch)
    if group.is_attack:
        elapsed = sum(_time_attack(evaluator, batch, rest) for _, rest in group.work)
    arrays = {name: value.cpu().numpy() if hasattr(value, 'cpu') else value for name, value in values.items() if name}
    line = format_line(evaluator.identity, Entry(str(group.work[0][0]), np.arange(len(batch)), arrays))
    return elapsed, len(json.dumps(line['values'])) / len(batch)


def _time_attack(evaluator: Evaluator, batch: RawBatch, rest: Any) -> float:
    """Return the seconds per image of an attack that runs to its end."""
    attack = build_attack(get_attack(rest), predictors=evaluator.options.predictors)
    images = next(apply_corruption(batch, [rest], evaluator.options.seed))
    prepared = evaluator.predictor.collate(batch.samples(images), images)
    members: Sequence[Any] = attack.make_members() if hasattr(attack, 'make_members') else [attack]
    total = 0.
    for member in members:
        changes: dict[str, Any] = {'steps': 1} if getattr(member, 'steps', 1) > 1 else {}
        short = replace(member, **changes)
        counted = CountingPredictor(evaluator.predictor)
        start = time.perf_counter()
        short(counted, prepared, BatchRng(evaluator.options.seed, batch.ids, device=prepared.images.device))
        searches = getattr(member, 'restarts', 1) * getattr(member, 'targets', 1)
        total += (time.perf_counter() - start) / len(batch) * getattr(member, 'steps', 1) * searches
    return total
