"""Peak memory and time of one Re-attention, streaming against the official formula: 12 heads of 32.

python -m speed.reattention [--eval-tokens 4150] [--train-tokens 2101] [--repeat 3] [--threads 2] [--quick]

eval: forward without gradients. train: forward and backward with batch statistics. Each measurement runs in a separate
process, so that the peak resident memory (ru_maxrss) belongs to it alone. The peak of the same process without the
attention is subtracted. On a GPU, torch's peak allocation is used. Writes reattention.json.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from speed.environment import bench_parser, keep
from speed.rows import HERE
from pit_downstream.backbones.reattention import ReAttention

HEADS, HEAD_DIM = 12, 32
PASSES = 4  # per process; the first is a warm-up


class OfficialReAttention(ReAttention):
    """norm(conv(softmax(q k^T / sqrt(d)))) * scale @ v with every map in memory, as in the official code."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        attention = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        return self.var_norm(self.reatten_matrix(attention)) * self.reatten_scale @ v


KINDS = {'nothing': None, 'streaming': ReAttention, 'official': OfficialReAttention}


def one_pass(module: ReAttention, qkv: list[Tensor]) -> float:
    """Run forward, and in training backward. Return a number that depends on all of it."""
    with torch.set_grad_enabled(module.training):
        out = module.attend(*qkv)
    if not module.training:
        return out.double().square().sum().item()
    wanted = (*qkv, *module.reatten_matrix.parameters(), *module.var_norm.parameters())
    grads = torch.autograd.grad(out.sin().sum(), wanted)
    return sum(grad.double().square().sum() for grad in grads).item()  # waits for the device


def measure(kind: str, mode: str, tokens: int) -> dict:
    """Measure seconds of each pass, peak bytes and a sum of one `kind` in this process. mode: 'eval' or 'train'."""
    torch.manual_seed(0)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    cls = KINDS[kind]
    module = (cls or ReAttention)(HEADS * HEAD_DIM, HEADS).train(mode == 'train').to(device)
    qkv = [torch.randn(1, HEADS, tokens, HEAD_DIM, device=device, requires_grad=module.training) for _ in range(3)]
    total, seconds = timed(lambda: one_pass(module, qkv)) if cls else (0.0, [])
    if device == 'cuda':
        return {'seconds': seconds, 'bytes': torch.cuda.max_memory_allocated(), 'sum': total}
    return {'seconds': seconds, 'bytes': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, 'sum': total}


def timed(work: Callable[[], float]) -> tuple[float, list[float]]:
    seconds = []
    for _ in range(PASSES):
        start = time.perf_counter()
        total = work()
        seconds.append(time.perf_counter() - start)
    return total, seconds[1:]


def in_its_own_process(kind: str, mode: str, tokens: int, threads: int) -> dict:
    command = [sys.executable, '-m', 'speed.reattention', '--measure', kind, mode, str(tokens),
               '--threads', str(threads)]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def compare(mode: str, tokens: int, *, repeat: int, threads: int) -> dict:
    runs: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    for _ in range(repeat):  # the kinds alternate, so that a load spike affects all
        for kind in KINDS:
            runs[kind].append(in_its_own_process(kind, mode, tokens, threads))
    peak = {kind: statistics.median(run['bytes'] for run in runs[kind]) for kind in KINDS}
    sides = [kind for kind in KINDS if kind != 'nothing']
    extra = {kind: peak[kind] - peak['nothing'] for kind in sides}
    seconds = {kind: sorted(second for run in runs[kind] for second in run['seconds']) for kind in sides}
    median = {kind: statistics.median(seconds[kind]) for kind in sides}
    return {
        'mode': mode, 'tokens': tokens, 'heads': HEADS, 'head_dim': HEAD_DIM, 'batch': 1, 'dtype': 'float32',
        'extra_mib': {kind: round(size / 2 ** 20, 1) for kind, size in extra.items()},
        'median_seconds': {kind: round(median[kind], 4) for kind in sides},
        'seconds': {kind: [round(second, 4) for second in seconds[kind]] for kind in sides},
        'memory_ratio': round(extra['official'] / extra['streaming'], 1),
        'time_ratio': round(median['official'] / median['streaming'], 2),
        'relative_difference': abs(runs['streaming'][0]['sum'] / runs['official'][0]['sum'] - 1),
    }


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument('--eval-tokens', type=int, default=4150, help='800 x 1333 pixels')
    parser.add_argument('--train-tokens', type=int, default=2101)
    parser.add_argument('--repeat', type=int, default=3)
    parser.add_argument('--measure', nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.measure:
        kind, mode, tokens = args.measure
        print(json.dumps(measure(kind, mode, int(tokens))))
        return
    if args.quick:
        args.eval_tokens, args.train_tokens, args.repeat = 197, 197, 1
    results = [compare(mode, tokens, repeat=args.repeat, threads=args.threads)
               for mode, tokens in (('eval', args.eval_tokens), ('train', args.train_tokens))]
    for result in results:
        print('{mode} at {tokens} tokens: seconds {median_seconds}, time x{time_ratio}; MiB {extra_mib}, '
              'memory x{memory_ratio}; sums differ by {relative_difference:.0e}'.format(**result))
    print(keep('reattention', results, quick=args.quick))


if __name__ == '__main__':
    main()
