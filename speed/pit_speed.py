"""Forward pass and training step of a PiT classifier: ours, timm's, and ours with the explicit attention map.

python -m speed.pit_speed [--archs ti s] [--batch 8] [--repeat 7] [--threads 2] [--quick]

All three have the same weights and the same images of 224 x 224, the only size that timm's model accepts. A training
step is forward, cross-entropy, backward and AdamW. The sides alternate in one process; the median counts. Writes
pit_speed.json: seconds, images per second, and the speedup of ours.
"""

from collections.abc import Callable

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pit_downstream.backbones  # noqa: F401  registers the models
from speed.attention_memory import ExplicitAttention
from speed.environment import bench_parser, in_turns, keep, medians
from pit_downstream.backbones.layers import Attention

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


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


def difference(sides: dict[str, nn.Module], images: Tensor) -> float:
    """Compute the largest difference between the logits of ours and of the others."""
    logits = {name: forward(model, images)() for name, model in sides.items()}
    return max((logits['ours'] - other).abs().max().item() for other in logits.values())


def compare(arch: str, batch: int, repeat: int) -> list[dict]:
    sides, rows = models(arch), []
    images = torch.randn(batch, 3, 224, 224, device=DEVICE)
    labels = torch.arange(batch, device=DEVICE)
    differs = difference(sides, images)
    works = {'forward': {name: forward(model, images) for name, model in sides.items()}}
    for mode in ('forward', 'training step'):
        if mode != 'forward':
            works[mode] = {name: training_step(model, images, labels) for name, model in sides.items()}
        times = in_turns(works[mode], repeat)
        median = medians(times)
        rows.append({
            'model': f'pit_{arch}', 'mode': mode, 'batch': batch, 'dtype': 'float32', 'logits_differ_by': differs,
            'images_per_second': {name: round(batch / one, 2) for name, one in median.items()},
            'seconds': {name: [round(one, 4) for one in found] for name, found in times.items()},
            'against': {name: {'time_ratio': round(median[name] / median['ours'], 3)}
                        for name in ('timm', 'explicit')}})
        print('{model} {mode}: images/s {images_per_second}, {against}'.format(**rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument('--archs', nargs='+', default=['ti', 's'])
    parser.add_argument('--batch', type=int, default=8 if DEVICE == 'cpu' else 128)
    parser.add_argument('--repeat', type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.quick:
        args.archs, args.batch, args.repeat = ['ti'], 2, 1
    rows = [row for arch in args.archs for row in compare(arch, args.batch, args.repeat)]
    print(keep('pit_speed', rows, quick=args.quick))


if __name__ == '__main__':
    main()
