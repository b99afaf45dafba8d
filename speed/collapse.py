"""Attention collapse: ViT-16 and DeepViT-16 trained side by side on CIFAR-10 for the same short schedule.

python -m speed.collapse --data DIR --out DIR [--steps 400] [--batch-size 32] [--seed 0]
python -m speed.collapse --out DIR       draws and prints docs/results/collapse.csv again

--data: a folder per class of images of one size under train/ and test/. --out: collapse.png, and the checkpoint that
resumes an interrupted run. Both models get the same batch in every step and start from equal weights where they share
them. All test images are classified and traced before the first step and after the last one, to compare untrained with
trained attention maps. Writes docs/results/collapse.csv.
"""

import argparse
import csv
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import pit_downstream.backbones  # noqa: F401  registers the models
from pit_downstream.benchmarks.attention import get_neighbor_similarity, select_metric
from pit_downstream.evaluation.attention_figures import draw_similarity
from pit_downstream.attention.trace import trace_attention
from pit_downstream.metrics.attention import AttentionCollapse
from pit_downstream.results.outcomes import Entry, Outcomes
from speed.table import HERE

OUT = HERE.parent / 'docs' / 'results' / 'collapse.csv'
NAMES, MOMENTS = ('vit_16', 'deepvit_16'), ('untrained', 'trained')
COLUMNS = tuple(f'{name} {moment}' for moment in MOMENTS for name in NAMES)
LR, WEIGHT_DECAY = 5e-4, 0.05  # dvit_repo, scripts/*.yaml
CLIP = 1.0  # gradient norm
WARM_UP = 0.1  # fraction of the steps
MARGIN = 4  # maximum shift of a training image in pixels
CHECKPOINT_EVERY = 50


def read_images(folder: Path) -> tuple[Tensor, Tensor]:
    """Return images, uint8 (n, 3, H, W), and labels (n,), from a folder per class."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [(path, label) for label, name in enumerate(classes) for path in sorted((folder / name).iterdir())]
    images = np.stack([np.asarray(Image.open(path).convert('RGB')) for path, _ in files])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor([label for _, label in files])


def network_images(images: Tensor, side: int) -> Tensor:
    """Convert uint8 (B, 3, H, W) to (B, 3, side, side) in [-1, 1], the input of the DeepViT paper's models."""
    return F.interpolate(images.float() / 127.5 - 1, (side, side), mode='bicubic', align_corners=False)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to MARGIN pixels with reflected edges, and flip half of the images. uint8 (B, 3, H, W)."""
    height, width = images.shape[-2:]
    wide = F.pad(images.float(), [MARGIN] * 4, mode='reflect').to(images.dtype)
    rows, columns = torch.randint(2 * MARGIN + 1, (2, len(images)), generator=generator).tolist()
    shifted = torch.stack([one[:, y:y + height, x:x + width] for one, y, x in zip(wide, rows, columns)])
    mirror = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirror[:, None, None, None], shifted.flip(-1), shifted)


def batches(count: int, args: argparse.Namespace) -> Iterator[tuple[Tensor, torch.Generator]]:
    """Yield the image indices and a generator for every step, the same after a restart."""
    order = torch.Generator().manual_seed(args.seed)
    per_epoch = count // args.batch_size
    for step in range(args.steps):
        if step % per_epoch == 0:
            shuffled = torch.randperm(count, generator=order)
        start = step % per_epoch * args.batch_size
        yield shuffled[start:start + args.batch_size], torch.Generator().manual_seed(args.seed + 1 + step)


def build(args: argparse.Namespace) -> dict[str, nn.Module]:
    """Build both models, with equal weights where they share them."""
    models = {}
    for name in NAMES:
        torch.manual_seed(args.seed)
        models[name] = timm.create_model(name, num_classes=10, img_size=args.img_size)
    models['deepvit_16'].load_state_dict(models['vit_16'].state_dict(), strict=False)
    return models


class Training:
    """Both models with their optimizers and training progress."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.path = args, args.out / 'checkpoint.pth'
        self.models = build(args)
        self.optims = {name: torch.optim.AdamW(groups(model), LR) for name, model in self.models.items()}
        self.step, self.losses, self.seconds = 0, {name: [] for name in NAMES}, dict.fromkeys(NAMES, 0.0)
        self.measured: dict[str, dict] = {}

    def run(self, images: Tensor, labels: Tensor) -> None:
        for step, (indices, generator) in enumerate(batches(len(images), self.args)):
            if step < self.step:
                continue
            inputs = network_images(augment(images[indices], generator), self.args.img_size)
            for name in NAMES:
                start = time.perf_counter()
                self.losses[name].append(round(self._learn(name, inputs, labels[indices]), 4))
                self.seconds[name] += time.perf_counter() - start
            self.step += 1
            if self.step % 10 == 0:
                print(self.step, {name: round(sum(losses[-10:]) / 10, 3) for name, losses in self.losses.items()},
                      {name: round(seconds) for name, seconds in self.seconds.items()}, flush=True)
            if self.step % CHECKPOINT_EVERY == 0 or self.step == self.args.steps:
                self.save()

    def _learn(self, name: str, inputs: Tensor, labels: Tensor) -> float:
        model, optim = self.models[name].train(), self.optims[name]
        for group in optim.param_groups:
            group['lr'] = LR * learning_rate_factor(self.step, self.args.steps)
        # at 17 tokens a CPU is faster without the fused kernel
        with sdpa_kernel(SDPBackend.MATH), torch.autocast('cpu', torch.bfloat16, enabled=not self.args.float32):
            loss = F.cross_entropy(model(inputs), labels)
        optim.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optim.step()
        return loss.item()

    def save(self) -> None:
        state = {'models': {name: model.state_dict() for name, model in self.models.items()},
                 'optims': {name: optim.state_dict() for name, optim in self.optims.items()},
                 **{name: getattr(self, name) for name in ('step', 'losses', 'seconds', 'measured')}}
        torch.save(state, self.path.with_suffix('.new'))
        os.replace(self.path.with_suffix('.new'), self.path)

    def load(self) -> None:
        state = torch.load(self.path, weights_only=True)
        for name in NAMES:
            self.models[name].load_state_dict(state['models'][name])
            self.optims[name].load_state_dict(state['optims'][name])
        for name in ('step', 'losses', 'seconds', 'measured'):
            setattr(self, name, state[name])


def groups(model: nn.Module) -> list[dict]:
    """Return parameter groups without weight decay on norms, biases, class token and position embedding."""
    still = model.no_weight_decay()
    decayed = {True: [], False: []}
    for name, parameter in model.named_parameters():
        decayed[parameter.ndim > 1 and name not in still].append(parameter)
    return [{'params': decayed[True], 'weight_decay': WEIGHT_DECAY}, {'params': decayed[False], 'weight_decay': 0.0}]


def learning_rate_factor(step: int, steps: int) -> float:
    """Return the factor of a linear warm-up, then a cosine to 0."""
    warm = WARM_UP * steps
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2


@torch.inference_mode()
def measure(model: nn.Module, images: Tensor, labels: Tensor, args: argparse.Namespace) -> dict:
    """Measure accuracy on all images, in float32, and attention collapse."""
    model.eval()
    metric, outcomes, correct = AttentionCollapse(), Outcomes(len(images)), 0
    with trace_attention(model) as trace:
        for start in range(0, len(images), 100):
            logits = model(network_images(images[start:start + 100], args.img_size))
            correct += (logits.argmax(1) == labels[start:start + 100]).sum().item()
            values = {name: value.numpy() for name, value in metric.measure(SimpleNamespace(trace=trace)).items()}
            outcomes.add(Entry('clean', np.arange(start, start + len(logits)), values))
    numbers = {f'{one.metric}@{one.layer}': float(f'{one.value:.6g}') for one in metric.compute(outcomes)}
    return {'accuracy': correct / len(images), 'values': numbers}


def measure_both(training: Training, moment: str, test: tuple[Tensor, Tensor]) -> None:
    if moment not in training.measured:
        training.measured[moment] = {name: measure(model, *test, training.args)
                                     for name, model in training.models.items()}
        training.save()


def write_values(training: Training) -> None:
    """Write every value to docs/results/collapse.csv: a row per metric and layer, a column per model and moment."""
    table: dict[tuple[str, str], dict[str, float]] = {}
    for moment, both in training.measured.items():
        for name, one in both.items():
            for key, value in {'accuracy@': one['accuracy'], **one['values']}.items():
                table.setdefault(tuple(key.split('@')), {})[f'{name} {moment}'] = value
    for name, losses in training.losses.items():
        for step in range(9, len(losses), 10):
            table.setdefault(('train_loss', f'step{step + 1}'), {})[f'{name} trained'] = losses[step]
    with OUT.open('w', newline='') as file:
        writer = csv.DictWriter(file, ('metric', 'layer', *COLUMNS), lineterminator='\n')
        writer.writeheader()
        writer.writerows({'metric': metric, 'layer': layer, **row} for (metric, layer), row in table.items())


def read_values() -> dict[str, dict[str, dict]]:
    """Return {moment: {model: {'accuracy': ..., 'values': {'metric@layer': ...}}}} from docs/results/collapse.csv."""
    with OUT.open(newline='') as file:
        rows = [row for row in csv.DictReader(file) if row['metric'] != 'train_loss']
    measured: dict[str, dict[str, dict]] = {moment: {} for moment in MOMENTS}
    for column in COLUMNS:
        name, moment = column.split()
        values = {f'{row["metric"]}@{row["layer"]}': float(row[column]) for row in rows if row[column]}
        measured[moment][name] = {'accuracy': values.pop('accuracy@'), 'values': values}
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--steps', type=int, default=400)
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--img-size', type=int, default=64)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--float32', action='store_true', help='train without bfloat16 autocast')
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.data:
        train_and_measure(args)
    measured = read_values()
    draw_similarity({f'{name} {moment}': one['values'] for moment, both in measured.items()
                     for name, one in both.items()}, args.out / 'collapse.png')
    print(summary_table(measured), *(block_table(both) for both in measured.values()), sep='\n\n')


def train_and_measure(args: argparse.Namespace) -> None:
    train, test = read_images(args.data / 'train'), read_images(args.data / 'test')
    training = Training(args)
    if training.path.exists():
        training.load()
    if not training.step:
        measure_both(training, 'untrained', test)
    training.run(*train)
    measure_both(training, 'trained', test)
    write_values(training)


def summary_table(measured: dict) -> str:
    """Return a Markdown table with a row for every time, model and map type."""
    head = ('maps', 'accuracy', 'similar blocks', 'to the block before', 'among heads', 'effective rank',
            'entropy, nats', 'last tokens: similarity', 'effective rank')
    rows = [head, ['---'] * len(head)]
    rows += [(f'{name}, {kind}, {moment}', f"{one['accuracy']:.3f}", *summary_cells(one['values'], kind))
             for moment, both in measured.items() for name, one in both.items() for kind in kinds_of(one['values'])]
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def summary_cells(values: dict, kind: str) -> list[str]:
    """Return means over the blocks. Token measures are those of the last block."""
    def mean(of_block: dict) -> float:
        return sum(of_block.values()) / len(of_block)
    ranks = select_metric(values, f'{kind}_rank')
    return [f"{values[f'{kind}_similar_blocks(threshold=0.9)@']:.0f} of {len(ranks)}",
            f'{mean(get_neighbor_similarity(values, kind)):.3f}',
            f"{mean(select_metric(values, f'{kind}_head_similarity')):.3f}", f'{mean(ranks):.2f}',
            f"{mean(select_metric(values, 'softmax_entropy')):.2f}" if kind == 'softmax' else '',
            *(f'{[*select_metric(values, metric).values()][-1]:.2f}' for metric in ('token_similarity', 'token_rank'))]


def block_table(both: dict) -> str:
    """Return a Markdown table by block: similarity to the previous block, entropy, effective rank of map and tokens."""
    columns = {}
    for name, one in both.items():
        values = one['values']
        for kind in kinds_of(values):
            columns[f'{name} {kind} similarity'] = get_neighbor_similarity(values, kind)
            columns[f'{name} {kind} rank'] = select_metric(values, f'{kind}_rank')
        columns[f'{name} entropy'] = select_metric(values, 'softmax_entropy')
        columns[f'{name} token rank'] = select_metric(values, 'token_rank')
    lines = ['| block | ' + ' | '.join(columns) + ' |', '|---' * (len(columns) + 1) + '|']
    for place in select_metric(values, 'token_rank'):
        cells = (f'{column[place]:.3f}' if place in column else '' for column in columns.values())
        lines.append('| ' + ' | '.join((place.removeprefix('block'), *cells)) + ' |')
    return '\n'.join(lines)


def kinds_of(values: dict) -> list[str]:
    return [kind for kind in ('softmax', 'reattention') if select_metric(values, f'{kind}_rank')]


if __name__ == '__main__':
    main()
