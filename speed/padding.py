"""Cost of padding that does not leak: PiT-S on two images of different sizes, batched in three ways.

python -m speed.padding [--shape 800 1333] [--smaller 800 1066] [--repeat 5] [--forward-only] [--quick]

padded: both at the larger size, attention includes the padding. alone: each at its size (backbones/multi_scale.py).
masked: as padded, with a boolean mask of the padding for PyTorch's fused attention.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from pit_downstream.backbones import PiT
from pit_downstream.backbones.multi_scale import forward_per_size
from speed.runner import DEVICE, bench_parser, record, seconds, time_sides
from speed.table import SECONDS, Comparison, Spread


@contextmanager
def masked_attention(backbone: PiT, images: Tensor, sizes: list[tuple[int, int]]) -> Iterator[None]:
    """Apply a key mask (B, 1, 1, N) for its stage in every attention: one class token, then the grid."""
    fused, masks, shape = F.scaled_dot_product_attention, {}, images.shape[-2:]

    def grid(size: tuple[int, int], stage: int) -> tuple[int, int]:
        sides = [(side - backbone.arch.patch_size) // backbone.arch.stride + 1 for side in size]
        return tuple(-(-side // 2 ** stage) for side in sides)

    for stage in range(3):
        full = grid(shape, stage)
        inside = torch.zeros(len(sizes), *full, dtype=torch.bool, device=images.device)
        for mask, size in zip(inside, sizes, strict=True):
            height, width = grid(size, stage)
            mask[:height, :width] = True
        whole = torch.cat((inside.new_ones(len(sizes), 1), inside.flatten(1)), 1)
        masks[whole.shape[1]] = whole[:, None, None]
    F.scaled_dot_product_attention = lambda q, k, v, dropout_p: fused(q, k, v, masks[q.shape[2]], dropout_p)
    try:
        yield
    finally:
        F.scaled_dot_product_attention = fused


def compare(shape: tuple[int, int], smaller: tuple[int, int], repeat: int, backward: bool) -> list[Comparison]:
    torch.manual_seed(0)
    backbone = PiT('s').to(DEVICE).train(backward).requires_grad_(backward)
    sizes = [tuple(shape), tuple(smaller)]
    images = torch.zeros(2, 3, *shape, device=DEVICE)
    for image, (height, width) in zip(images, sizes):
        image[:, :height, :width] = torch.randn(3, height, width, device=DEVICE)

    def run(forward: Callable[[], tuple[Tensor, ...]], *, masked: bool = False) -> Callable[[], None]:
        def work() -> None:
            with masked_attention(backbone, images, sizes) if masked else nullcontext():
                total = torch.stack([one.sum() for one in forward()]).sum()
                if backward:
                    total.backward()
        return work
    times = {side: Spread.of(*found) for side, found in time_sides({
        'padded': run(lambda: backbone(images)),
        'alone': run(lambda: forward_per_size(backbone.compute_maps, images, sizes)),
        'masked': run(lambda: backbone(images), masked=True)}, repeat, clock=clock).items()}
    setting = ' and '.join(f'{height} x {width}' for height, width in sizes)
    return [Comparison('PiT-S, padding that does not leak', f'{setting}, forward{" and backward" * backward}', metric,
                       SECONDS, times['alone'], peer, times[side])
            for metric in ('time' if DEVICE == 'cuda' else 'CPU time',)
            for side, peer in (('masked', 'masked attention'), ('padded', 'padded attention, which leaks'))]


def clock(work: Callable[[], None]) -> float:
    """Measure a run. On a CPU this is process time, which other programs disturb less."""
    if DEVICE == 'cuda':
        return seconds(work)
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = bench_parser(__doc__)
    add = parser.add_argument
    add('--shape', nargs=2, type=int, default=[800, 1333], metavar=('H', 'W'))
    add('--smaller', nargs=2, type=int, default=[800, 1066], metavar=('H', 'W'), help='of the second image')
    add('--repeat', type=int, default=5)
    add('--forward-only', action='store_true', help='no backward pass')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.quick:
        args.shape, args.smaller, args.repeat = (128, 160), (128, 128), 1
    record('padding', compare(args.shape, args.smaller, args.repeat, not args.forward_only), quick=args.quick)


if __name__ == '__main__':
    main()
