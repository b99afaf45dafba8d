"""Forward pass and training step of a PiT classifier: ours, timm's, and ours with the explicit attention map.

python -m speed.pit_speed [--archs ti s] [--batch 8] [--repeat 7] [--threads 2] [--quick]

All three have the same weights and the same images of 224 x 224, the only size that timm's model accepts. A training
step is forward, cross-entropy, backward and AdamW. The sides alternate in one process; the median counts. The largest
difference between the logits of ours and of the two peers has a row of its own.
"""

from collections.abc import Callable

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pit_downstream.backbones  # noqa: F401  registers the models
from pit_downstream.backbones.layers import Attention
from speed.attention_memory import ExplicitAttention
from speed.runner import DEVICE, bench_parser, record, time_sides
from speed.table import SECONDS, Comparison, Spread

PEERS = {'timm': 'timm', 'explicit': 'the explicit map'}


def models(arch: str) -> dict[str, nn.Module]:
    """Build the three sides, with the same weights."""
    torch.manual_seed(0)
    sides = {'ours': timm.create_model(f'pit_{arch}'), 'timm': timm.create_model(f'pit_{arch}_224'),
             'explicit': timm.create_model(f'pit_{arch}')}
    sides['explicit'].load_state_dict(sides['ours'].state_dict())
    theirs = {name.replace('pools.0', 'transformers.1.pool').replace('pools.1', 'transformers.2.pool'): value
              for name, value in sides['ours'].state_dict().items()}
    sides['timm'].load_state_dict(theirs)
    for module in sides['explicit'].modules():
        if type(module) is Attention:
            module.__class__ = ExplicitAttention
    return {name: model.to(DEVICE) for name, model in sides.items()}


def forward(model: nn.Module, images: Tensor) -> Callable[[], Tensor]:
    model.eval()

    @torch.inference_mode()
    def run() -> Tensor:
        return model(images)
    return run


def training_step(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-5)

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return run


def compare(arch: str, batch: int, repeat: int) -> list[Comparison]:
    sides, setting = models(arch), f'{batch} images of 224 x 224'
    images = torch.randn(batch, 3, 224, 224, device=DEVICE)
    labels = torch.arange(batch, device=DEVICE)
    logits = {name: forward(model, images)() for name, model in sides.items()}
    differs = max((logits['ours'] - logits[name]).abs().max().item() for name in PEERS)
    results = [Comparison(f'pit_{arch}, forward', setting, 'largest difference of logits', '', Spread.of(differs),
                          ' and '.join(PEERS.values()))]
    for mode in ('forward', 'training step'):
        works = {name: forward(model, images) if mode == 'forward' else training_step(model, images, labels)
                 for name, model in sides.items()}
        times = {name: Spread.of(*found) for name, found in time_sides(works, repeat).items()}
        results += [Comparison(f'pit_{arch}, {mode}', setting, 'time', SECONDS, times['ours'], peer, times[name])
                    for name, peer in PEERS.items()]
    return results


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument('--archs', nargs='+', default=['ti', 's'])
    parser.add_argument('--batch', type=int, default=8 if DEVICE == 'cpu' else 128)
    parser.add_argument('--repeat', type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.quick:
        args.archs, args.batch, args.repeat = ['ti'], 2, 1
    for arch in args.archs:
        record('pit_speed', compare(arch, args.batch, args.repeat), quick=args.quick)


if __name__ == '__main__':
    main()
