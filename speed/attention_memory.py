"""Peak memory and time of one PiT-S stage-1 block, forward + backward: our fused attention against the explicit map.

python -m speed.attention_memory [--shape 800 1333] [--repeat 3] [--threads 2] [--quick]

Each measurement runs in a separate process, so that the peak resident memory (ru_maxrss) belongs to it alone. The peak
of the same process without the block is subtracted. On a GPU, torch's peak allocation is used.
"""

import argparse
import json
import statistics
import time

import torch
from torch import Tensor

from pit_downstream.backbones.layers import Attention, Block
from pit_downstream.backbones.pit import ARCHS
from speed.runner import DEVICE, bench_parser, peak_bytes, record, run_separately
from speed.table import GIB, SECONDS, Comparison, Spread


class ExplicitAttention(Attention):
    """Attention softmax(q k^T / sqrt(d)) v with the map in memory, as in the official code."""

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        q, k, v = self.qkv(tokens).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        attention = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(batch, count, width))


def token_count(height: int, width: int) -> int:
    """Return the tokens of PiT-S stage 1 for images of this size: the grid of the valid stem and one class token."""
    arch = ARCHS['s']
    return ((height - arch.patch_size) // arch.stride + 1) * ((width - arch.patch_size) // arch.stride + 1) + 1


def measure(side: str, tokens: int) -> dict:
    """Run one block forward and backward in this process. side: 'fused', 'explicit', or 'nothing' for the baseline."""
    torch.manual_seed(0)
    arch = ARCHS['s']
    block = Block(arch.widths[0], arch.heads[0]).to(DEVICE)
    if side == 'explicit':
        block.attn.__class__ = ExplicitAttention
    images = torch.randn(1, tokens, arch.widths[0], device=DEVICE, requires_grad=True)
    seconds, total = 0.0, 0.0
    for _ in range(0 if side == 'nothing' else 2):  # the first pass warms up
        block.zero_grad()
        start = time.perf_counter()
        loss = block(images).sin().sum()
        loss.backward()
        total = loss.item()  # waits for the device
        seconds = time.perf_counter() - start
    return {'seconds': seconds, 'bytes': peak_bytes(), 'sum': total}


def compare(height: int, width: int, *, repeat: int, threads: int) -> list[Comparison]:
    tokens = token_count(height, width)
    runs: dict[str, list[dict]] = {'nothing': [], 'fused': [], 'explicit': []}
    for _ in range(repeat):  # alternating, so that a load spike affects all
        for side, found in runs.items():
            found.append(run_separately('attention_memory', '--measure', side, tokens, '--threads', threads))
    base = statistics.median(run['bytes'] for run in runs['nothing'])
    extra = {side: Spread.of(*((run['bytes'] - base) / 2 ** 30 for run in runs[side])) for side in runs}
    times = {side: Spread.of(*(run['seconds'] for run in runs[side])) for side in runs}
    same = abs(runs['fused'][0]['sum'] / runs['explicit'][0]['sum'] - 1)
    what = ('a block of PiT-S, forward and backward', f'stage 1 at {height} x {width}')
    peer = 'the explicit map'
    return [Comparison(*what, 'memory', GIB, extra['fused'], peer, extra['explicit']),
            Comparison(*what, 'time', SECONDS, times['fused'], peer, times['explicit']),
            Comparison(*what, 'relative difference of sums', '', Spread.of(same), peer)]


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument('--shape', nargs=2, type=int, default=[800, 1333], metavar=('H', 'W'))
    parser.add_argument('--repeat', type=int, default=3)
    parser.add_argument('--measure', nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.measure:
        print(json.dumps(measure(args.measure[0], int(args.measure[1]))))
        return
    if args.quick:
        args.shape, args.repeat = (224, 224), 1
    record('attention_memory', compare(*args.shape, repeat=args.repeat, threads=args.threads), quick=args.quick)


if __name__ == '__main__':
    main()
