"""Milliseconds per image and severity of every corruption against imagecorruptions 1.1.2, same images, one run.

python -m speed.corruption_speed [--sizes 224x224 480x640] [--batch 32] [--images 1] [--repeat 3] [--threads 2]
    [--quick]

Ours: the five severities of a batch together, divided by five and by the batch size. The reference: image by image,
the mean over the severities, patched to run on current numpy and scikit-image
(tests/reference/imagecorruptions_mended.py). Its OpenCV calls may also use the threads. Both are wall time on the same
cores, alternating; the median counts. Needs an idle machine. Writes corruption_speed.json.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch

from speed.environment import bench_parser, keep
from pit_downstream.utils.registry import CORRUPTIONS
from pit_downstream.corruptions import BatchRng, corrupt_severities
from pit_downstream.corruptions.base import REFERENCE
from tests.corruptions.photographs import NAMES, photograph
from tests.reference.imagecorruptions_mended import reference

REFERENCED = [name for name in CORRUPTIONS if CORRUPTIONS.entry(name).about['source'] == REFERENCE]
SEVERITIES = (1, 2, 3, 4, 5)
# Milliseconds of imagecorruptions' unreleased master with numba at 224x224, on a core of the same machine type
MASTER = {'zoom_blur': 48, 'brightness': 14.3, 'glass_blur': 9.3, 'shot_noise': 8.7, 'elastic_transform': 8.0,
          'snow': 5.5, 'frost': 5.2, 'motion_blur': 4.3, 'gaussian_noise': 3.5, 'impulse_noise': 3.0,
          'defocus_blur': 2.7, 'fog': 1.2, 'contrast': 1.1, 'jpeg_compression': .3, 'pixelate': .2}


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def ours(name: str, batch: torch.Tensor) -> float:
    rng = BatchRng(0, range(len(batch)))
    return milliseconds(lambda: corrupt_severities(batch, name, SEVERITIES, rng)) / len(batch) / len(SEVERITIES)


def theirs(name: str, images: list[np.ndarray]) -> float:
    return milliseconds(lambda: [reference(image, name, severity, seed=0) for image in images
                                 for severity in SEVERITIES]) / len(images) / len(SEVERITIES)


def compare(size: tuple[int, int], args: argparse.Namespace) -> dict:
    images = [photograph(NAMES[number % len(NAMES)], size) for number in range(args.images)]
    batch = torch.stack([torch.from_numpy(photograph(NAMES[number % len(NAMES)], size)).permute(2, 0, 1)
                         for number in range(args.batch)]).contiguous()
    rows = {}
    for name in REFERENCED:
        corrupt_severities(batch[:2], name, SEVERITIES, BatchRng(0, range(2)))  # fills caches
        times = [(ours(name, batch), theirs(name, images)) for _ in range(args.repeat)]
        mine, other = zip(*times, strict=True)
        rows[name] = {'ours_ms': statistics.median(mine), 'reference_ms': statistics.median(other),
                      'ours_all': [round(one, 3) for one in mine], 'reference_all': [round(one, 2) for one in other]}
        print(f'{size[0]}x{size[1]} {name:18} {rows[name]["ours_ms"]:8.2f} {rows[name]["reference_ms"]:8.2f} ms, '
              f'x{rows[name]["reference_ms"] / rows[name]["ours_ms"]:.1f}', flush=True)
    return {'height': size[0], 'width': size[1], 'batch': args.batch, **summary(rows), 'corruptions': {
        name: {key: round(one, 3) if isinstance(one, float) else one for key, one in row.items()}
        | {'times': round(row['reference_ms'] / row['ours_ms'], 1)} for name, row in rows.items()}}


def summary(rows: dict[str, dict]) -> dict:
    """Return sums over the fifteen corruptions of the benchmark."""
    fifteen = [row for name, row in rows.items() if name in MASTER]
    mine, other = (sum(row[key] for row in fifteen) for key in ('ours_ms', 'reference_ms'))
    return {'sum_of_15_ours_ms': round(mine, 2), 'sum_of_15_reference_ms': round(other, 1),
            'times': round(other / mine, 1)}


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument('--sizes', nargs='+', default=['224x224', '480x640'])
    parser.add_argument('--batch', type=int, default=32)
    parser.add_argument('--images', type=int, default=1, help='for the reference')
    parser.add_argument('--repeat', type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    if args.quick:
        args.sizes, args.batch, args.repeat = ['64x64'], 4, 1
    results = []
    for size in args.sizes:
        results.append(compare(tuple(int(side) for side in size.split('x')), args))
        path = keep('corruption_speed', results, quick=args.quick, master_at_224_ms=MASTER, master_sum_of_15_ms=115)
        print('{height}x{width}: the fifteen {sum_of_15_ours_ms} ms against {sum_of_15_reference_ms} ms, x{times}'
              .format(**results[-1]), flush=True)
    print(path)


if __name__ == '__main__':
    main()
