"""Peak memory and time of one PiT-S stage-1 block, forward + backward: our fused attention against the explicit map.

python -m speed.attention_memory [--shape 800 1333] [--repeat 3] [--threads 2] [--quick]

Each measurement runs in a separate process, so that the peak resident memory (ru_maxrss) belongs to it alone. The peak
of the same process without the block is subtracted. On a GPU, torch's peak allocation is used. Writes
attention_memory.json.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from torch import Tensor

from speed.environment import bench_parser, keep
from speed.rows import HERE
from pit_downstream.backbones.layers import Attention, Block
from pit_downstream.backbones.pit import ARCHS


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


def measure(kind: str, tokens: int) -> dict:
    """Run one block forward and backward in this process. kind: 'fused', 'explicit', or 'nothing' for the baseline."""
    torch.manual_seed(0)
    arch = ARCHS['s']
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    block = Block(arch.widths[0], arch.heads[0]).to(device)
    if kind == 'explicit':
        block.attn.__class__ = ExplicitAttention
    images = torch.randn(1, tokens, arch.widths[0], device=device, requires_grad=True)
    seconds, total = 0.0, 0.0
    for _ in range(0 if kind == 'nothing' else 2):  # the first pass warms up
        block.zero_grad()
        start = time.perf_counter()
        loss = block(images).sin().sum()
        loss.backward()
        total = loss.item()  # waits for the device
        seconds = time.perf_counter() - start
    if device == 'cuda':
        return {'seconds': seconds, 'bytes': torch.cuda.max_memory_allocated(), 'sum': total}
    return {'seconds': seconds, 'bytes': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, 'sum': total}


def in_its_own_process(kind: str, tokens: int, threads: int) -> dict:
    command = [sys.executable, '-m', 'speed.attention_memory', '--measure', kind, str(tokens),
               '--threads', str(threads)]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def compare(height: int, width: int, *, repeat: int, threads: int) -> dict:
    tokens = token_count(height, width)
    runs: dict[str, list[dict]] = {'nothing': [], 'fused': [], 'explicit': []}
    for _ in range(repeat):  # alternating, so that a load spike affects all
        for kind in runs:
            runs[kind].append(in_its_own_process(kind, tokens, threads))
    peak = {kind: statistics.median(run['bytes'] for run in kind_runs) for kind, kind_runs in runs.items()}
    seconds = {kind: [run['seconds'] for run in kind_runs] for kind, kind_runs in runs.items()}
    extra = {kind: peak[kind] - peak['nothing'] for kind in ('fused', 'explicit')}
    return {
        'image': [height, width], 'tokens': tokens, 'batch': 1, 'dtype': 'float32', 'repeat': repeat,
        'extra_gib': {kind: round(size / 2 ** 30, 3) for kind, size in extra.items()},
        'seconds': {kind: seconds[kind] for kind in ('fused', 'explicit')},
        'memory_ratio': round(extra['explicit'] / extra['fused'], 1),
        'time_ratio': round(statistics.median(seconds['explicit']) / statistics.median(seconds['fused']), 2),
        'relative_difference': abs(runs['fused'][0]['sum'] / runs['explicit'][0]['sum'] - 1),
    }


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
    result = compare(*args.shape, repeat=args.repeat, threads=args.threads)
    print(f'{result["tokens"]} tokens: fused {result["extra_gib"]["fused"]} GiB, explicit '
          f'{result["extra_gib"]["explicit"]} GiB (x{result["memory_ratio"]}); time x{result["time_ratio"]}')
    print(keep('attention_memory', [result], quick=args.quick))


if __name__ == '__main__':
    main()
