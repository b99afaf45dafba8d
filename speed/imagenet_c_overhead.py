"""Cost of ImageNet-C relative to the forward passes of the model alone, end to end.

python -m speed.imagenet_c_overhead [--data DIR] [--model pit_s] [--batch-size 25] [--threads 2]
    [--forwards 76] [--quick]

The whole benchmark, clean and 15 corruptions x 5 severities, runs as in tools/eval_imagenet_c.py: a worker decodes the
images, which are corrupted, classified, counted and stored. Before and after it, the model alone processes prepared
batches of the same images, half of `--forwards` times each; with fewer than 76 that time is scaled up. Weights are
random, since only time is measured. The time of each part of the run has a row of its own. Without --data the bundled
images are used, and the rows are added to work_dirs/bench/results.csv.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from pit_downstream.benchmarks import imagenet_c
from pit_downstream.utils.protocols import Batch
from pit_downstream.results.records import ResultStore
from pit_downstream.datasets.base import ImageFolderSamples
from pit_downstream.datasets.cache import CachedSamples
from pit_downstream.datasets.imagenet import load_class_folders
from pit_downstream.datasets.shapes import write_shapes
from pit_downstream.evaluation import evaluator
from pit_downstream.evaluation.classifier import ClassifierPredictor
from pit_downstream.evaluation.models import build_classifier
from pit_downstream.metrics.classification import (
    CalibrationError,
    NegativeLogLikelihood,
    TopError,
    make_classification_metrics,
)
from pit_downstream.results.outcomes import OutcomeStore
from speed.runner import DEVICE, bench_parser, record
from speed.table import SECONDS, Comparison, Spread

BUNDLED = 'data/shapes'
PASSES = len(imagenet_c.list_conditions())  # 76


class Clock:
    """Timer of the parts of a run that it wraps. On a GPU it waits for the work of each part."""

    def __init__(self, device: torch.device):
        self.device, self.seconds = device, defaultdict(float)

    def now(self) -> float:
        if self.device.type == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter()

    def called(self, part: str, function: Callable) -> Callable:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = self.now()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[part] += self.now() - start
        return timed

    def iterated(self, part: str, items: Iterator) -> Iterator:
        following = self.called(part, lambda: next(items, self))
        while (item := following()) is not self:
            yield item


def batches_of(predictor: ClassifierPredictor, samples: ImageFolderSamples, size: int) -> list[Batch]:
    read = [samples[index] for index in range(len(samples))]
    return [predictor.collate(read[start:start + size]) for start in range(0, len(read), size)]


def forward_seconds(predictor: ClassifierPredictor, batches: list[Batch], times: int, clock: Clock) -> float:
    start = clock.now()
    for _ in range(times):
        for batch in batches:
            predictor.predict(batch.images, batch)
    return clock.now() - start


def whole_seconds(predictor: ClassifierPredictor, samples: Any, folder: str, clock: Clock, **options: Any) -> float:
    """Measure the seconds of the benchmark from an empty store to a full table. The clock times the parts."""
    start = clock.now()
    table = evaluator.Evaluator(
        predictor, samples, make_classification_metrics(), imagenet_c.list_conditions(),
        store=evaluator.Store(Path(folder) / 'records'), options=evaluator.EvaluationOptions(**options)).run()
    imagenet_c.summarize(table)
    return clock.now() - start


def watch(clock: Clock, predictor: ClassifierPredictor) -> None:
    """Wrap the functions of a run to time them separately."""
    apply_corruption, load_blocks = evaluator.apply_corruption, evaluator.load_blocks
    evaluator.apply_corruption = lambda *args: clock.iterated('corruption', apply_corruption(*args))
    evaluator.load_blocks = lambda *args, **kwargs: clock.iterated('waiting for images', load_blocks(*args, **kwargs))
    predictor.predict = clock.called('forward', predictor.predict)
    predictor.collate = clock.called('collate', predictor.collate)
    for metric in (TopError, NegativeLogLikelihood, CalibrationError):
        metric.measure = clock.called('metrics', metric.measure)
        metric.compute = clock.called('metrics', metric.compute)
    OutcomeStore.append = clock.called('store', OutcomeStore.append)
    ResultStore.add = clock.called('store', ResultStore.add)


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument('--data', metavar='DIR', help='a folder per class')
    parser.add_argument('--model', default='pit_s')
    parser.add_argument('--batch-size', type=int, default=25)
    parser.add_argument('--workers', type=int, default=1)
    parser.add_argument('--forwards', type=int, default=PASSES)
    parser.add_argument('--limit', type=int)
    parser.add_argument('--amp', choices=['bf16', 'fp16'])
    parser.add_argument('--cache', action='store_true')
    parser.add_argument('--device', default=DEVICE)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.quick:
        args.model, args.limit, args.batch_size, args.forwards = 'pit_ti', 2, 2, 2
    predictor = build_classifier(args.model, weights='random', device=args.device, amp=args.amp)
    data = args.data or write_shapes(BUNDLED) / 'classification' / 'val'
    samples = load_class_folders(data, view=predictor.view)
    samples = samples if args.limit is None else samples.take(args.limit)
    clock = Clock(predictor.device)
    batches = batches_of(predictor, samples, args.batch_size)
    forward_seconds(predictor, batches[:1], 3, clock)  # warms up
    with tempfile.TemporaryDirectory() as folder:
        alone = forward_seconds(predictor, batches, args.forwards // 2, clock)
        watch(clock, predictor)
        whole = whole_seconds(predictor, CachedSamples(samples, folder) if args.cache else samples, folder, clock,
                              batch_size=args.batch_size, workers=args.workers)
        parts = dict(clock.seconds)
        alone += forward_seconds(predictor, batches, args.forwards - args.forwards // 2, clock)
    alone *= PASSES / args.forwards
    parts['the rest'] = whole - sum(parts.values())
    what, setting = 'ImageNet-C, end to end', f'{predictor.name}, {samples.name}'
    peer = 'its forward passes alone'
    record('imagenet_c_overhead', [
        Comparison(what, setting, 'time', SECONDS, Spread.of(whole), peer, Spread.of(alone), bound=True),
        *(Comparison(what, setting, f'time of {name}', SECONDS, Spread.of(found)) for name, found in parts.items())],
        quick=args.quick or not args.data)


if __name__ == '__main__':
    main()
