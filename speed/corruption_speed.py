"""Time per image and severity of every corruption against imagecorruptions 1.1.2, same images, one run.

python -m speed.corruption_speed [--sizes 224x224 480x640] [--batch 32] [--images 1] [--repeat 3] [--threads 2]
    [--quick]

Ours: the five severities of a batch together, divided by five and by the batch size. The reference: image by image,
the mean over the severities, patched to run on current numpy and scikit-image
(tests/reference/imagecorruptions_patched.py). Its OpenCV calls may also use the threads. Both are wall time on the same
cores, alternating; the median counts. Needs an idle machine.
"""

import argparse
from dataclasses import astuple, replace

import cv2
import torch

from pit_downstream.benchmarks import imagenet_c
from pit_downstream.corruptions import BatchRng, corrupt_severities
from pit_downstream.corruptions.base import REFERENCE
from pit_downstream.utils.registry import CORRUPTIONS
from speed.runner import bench_parser, record, seconds
from speed.table import SECONDS, Comparison, Spread
from tests.corruptions.photographs import NAMES, photograph
from tests.reference.imagecorruptions_patched import reference

REFERENCED = [name for name in CORRUPTIONS if CORRUPTIONS.get_entry(name).metadata['source'] == REFERENCE]
SEVERITIES = (1, 2, 3, 4, 5)
PEER, SUM = 'imagecorruptions', 'the 15 corruptions, an image and severity'


def compare(size: tuple[int, int], args: argparse.Namespace) -> list[Comparison]:
    """Compare every corruption, and the sums over the fifteen of ImageNet-C."""
    photographs = [photograph(NAMES[number % len(NAMES)], size) for number in range(max(args.batch, args.images))]
    images, setting = photographs[:args.images], f'{size[0]} x {size[1]}'
    batch = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in photographs[:args.batch]]).contiguous()

    def ours(name: str) -> float:
        rng = BatchRng(0, range(len(batch)))
        return seconds(lambda: corrupt_severities(batch, name, SEVERITIES, rng)) / len(batch) / len(SEVERITIES)

    def theirs(name: str) -> float:
        return seconds(lambda: [reference(image, name, severity, seed=0) for image in images
                                for severity in SEVERITIES]) / len(images) / len(SEVERITIES)
    results = []
    for name in REFERENCED:
        corrupt_severities(batch[:2], name, SEVERITIES, BatchRng(0, range(2)))  # fills caches
        mine, other = zip(*[(ours(name), theirs(name)) for _ in range(args.repeat)], strict=True)
        results.append(Comparison(name, setting, 'time', SECONDS, Spread.of(*mine), PEER, Spread.of(*other)))
        print(f'{setting} {name:18} {1e3 * results[-1].ours.median:8.2f} ms, ratio {results[-1].ratio:.1f}', flush=True)
    return [sum_of_fifteen(results), *results]


def sum_of_fifteen(results: list[Comparison]) -> Comparison:
    """Return the sums of the medians, minima and maxima over the fifteen corruptions of ImageNet-C."""
    fifteen = [one for one in results if one.case in imagenet_c.CORRUPTIONS]

    def total(spreads: list[Spread]) -> Spread:
        sums = [sum(values) for values in zip(*map(astuple, spreads), strict=True)]
        return Spread(*sums[:3], spreads[0].runs)
    return replace(fifteen[0], case=SUM, ours=total([one.ours for one in fifteen]),
                   theirs=total([one.theirs for one in fifteen]))


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
    for size in args.sizes:
        height, width = map(int, size.split('x'))
        record('corruption_speed', compare((height, width), args), quick=args.quick)


if __name__ == '__main__':
    main()
