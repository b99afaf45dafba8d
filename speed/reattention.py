"""Peak memory and time of one Re-attention, streaming against the official formula: 12 heads of 32.

python -m speed.reattention [--eval-tokens 4150] [--train-tokens 2101] [--repeat 3] [--threads 2] [--quick]

eval: forward without gradients. train: forward and backward with batch statistics. Each measurement runs in a separate
process, so that the peak resident memory (ru_maxrss) belongs to it alone. The peak of the same process without the
attention is subtracted. On a GPU, torch's peak allocation is used.
"""

import argparse
import json
import statistics
import time

import torch
from torch import Tensor

from pit_downstream.backbones.deepvit import ReAttention
from speed.runner import DEVICE, bench_parser, peak_bytes, record, run_separately
from speed.table import GIB, SECONDS, Comparison, Spread

HEADS, HEAD_DIM = 12, 32
PASSES = 4  # per process; the first is a warm-up


class OfficialReAttention(ReAttention):
    """norm(conv(softmax(q k^T / sqrt(d)))) * scale @ v with every map in memory, as in the official code."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        attention = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        return self.var_norm(self.reatten_matrix(attention)) * self.reatten_scale @ v


SIDES = {'nothing': None, 'streaming': ReAttention, 'official': OfficialReAttention}


def one_pass(module: ReAttention, qkv: list[Tensor]) -> float:
    """Run forward, and in training backward. Return a number that depends on all of it."""
    with torch.set_grad_enabled(module.training):
        out = module.attend(*qkv)
    if not module.training:
        return out.double().square().sum().item()
    wanted = (*qkv, *module.reatten_matrix.parameters(), *module.var_norm.parameters())
    grads = torch.autograd.grad(out.sin().sum(), wanted)
    return sum(grad.double().square().sum() for grad in grads).item()  # waits for the device


def measure(side: str, mode: str, tokens: int) -> dict:
    """Measure seconds of each pass, peak bytes and a sum of one side in this process. mode: 'eval' or 'train'."""
    torch.manual_seed(0)
    cls = SIDES[side]
    module = (cls or ReAttention)(HEADS * HEAD_DIM, HEADS).train(mode == 'train').to(DEVICE)
    qkv = [torch.randn(1, HEADS, tokens, HEAD_DIM, device=DEVICE, requires_grad=module.training) for _ in range(3)]
    total, seconds = 0.0, []
    for _ in range(PASSES if cls else 0):
        start = time.perf_counter()
        total = one_pass(module, qkv)
        seconds.append(time.perf_counter() - start)
    return {'seconds': seconds[1:], 'bytes': peak_bytes(), 'sum': total}


def compare(mode: str, tokens: int, *, repeat: int, threads: int) -> list[Comparison]:
    runs: dict[str, list[dict]] = {side: [] for side in SIDES}
    for _ in range(repeat):  # the sides alternate, so that a load spike affects all
        for side, found in runs.items():
            found.append(run_separately('reattention', '--measure', side, mode, tokens, '--threads', threads))
    base = statistics.median(run['bytes'] for run in runs.pop('nothing'))
    extra = {side: Spread.of(*((run['bytes'] - base) / 2 ** 30 for run in found)) for side, found in runs.items()}
    times = {side: Spread.of(*(second for run in found for second in run['seconds'])) for side, found in runs.items()}
    same = abs(runs['streaming'][0]['sum'] / runs['official'][0]['sum'] - 1)
    what = ({'eval': 'Re-attention, forward', 'train': 'Re-attention, forward and backward'}[mode],
            f'{tokens} tokens, {HEADS} heads of {HEAD_DIM}')
    peer = 'the official formula'
    return [Comparison(*what, 'memory', GIB, extra['streaming'], peer, extra['official']),
            Comparison(*what, 'time', SECONDS, times['streaming'], peer, times['official']),
            Comparison(*what, 'relative difference of sums', '', Spread.of(same), peer)]


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument('--eval-tokens', type=int, default=4150, help='800 x 1333 pixels')
    parser.add_argument('--train-tokens', type=int, default=2101)
    parser.add_argument('--repeat', type=int, default=3)
    parser.add_argument('--measure', nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.measure:
        side, mode, tokens = args.measure
        print(json.dumps(measure(side, mode, int(tokens))))
        return
    if args.quick:
        args.eval_tokens, args.train_tokens, args.repeat = 197, 197, 1
    for mode, tokens in (('eval', args.eval_tokens), ('train', args.train_tokens)):
        record('reattention', compare(mode, tokens, repeat=args.repeat, threads=args.threads), quick=args.quick)


if __name__ == '__main__':
    main()
