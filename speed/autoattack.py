"""AutoAttack standard against the original and torchattacks: time, robust accuracy, passes, in one run.

python -m speed.autoattack --weights FILE --data DIR --original DIR [--torchattacks] [--images 500]
    [--model 'pit_ti(img_size=64,num_classes=10)'] [--norm Linf] [--epsilons 2/255 8/255] [--batch 250]

--data: CIFAR-10's test images, a folder per class. --original: a checkout of fra31/auto-attack, which contains
autoattack/. --torchattacks: also its APGD-CE, APGD-T, FAB-T and Square with the official budgets, each on the images
that the previous one did not fool (its AutoAttack has 10 steps). All use the same model, images and batch size (250 in
the original), on one CPU thread. Seconds are CPU time, which a busy machine hardly changes; wall time is also reported.
Passes are counted per image and include the original's model checks.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor, nn

from pit_downstream.attacks import autoattack
from pit_downstream.datasets.imagenet import load_class_folders
from pit_downstream.evaluation.classifier import ClassifierPredictor
from pit_downstream.evaluation.models import build_classifier
from speed.runner import record
from speed.table import SECONDS, Comparison, Spread

Method = Callable[[nn.Module, Tensor, Tensor], Tensor]


class CountingPredictor(nn.Module):
    """Classifier of images in [0, 1] that counts its input images, and those with gradients."""

    def __init__(self, predictor: ClassifierPredictor):
        super().__init__()
        self.inner, self.logits = predictor.model, predictor.logits
        self.forward_images = self.backward_images = 0

    def forward(self, images: Tensor) -> Tensor:
        self.forward_images += len(images)
        self.backward_images += len(images) * (torch.is_grad_enabled() and images.requires_grad)
        return self.logits(images)


def ours(args: argparse.Namespace, epsilon: float) -> Method:
    return lambda model, images, labels: autoattack(model, images, labels, args.norm, epsilon, batch_size=args.rows)


def original(args: argparse.Namespace, epsilon: float) -> Method:
    sys.path.insert(0, str(args.original))
    from autoattack import AutoAttack

    def run(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        attack = AutoAttack(model, norm=args.norm, eps=epsilon, version='standard', seed=0, device='cpu', verbose=False)
        return attack.run_standard_evaluation(images, labels, bs=args.batch)
    return run


def torchattacks_members(args: argparse.Namespace, epsilon: float) -> Method:
    import torchattacks

    def run(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        shared = {'norm': args.norm, 'eps': epsilon, 'seed': 0}
        members = (torchattacks.APGD(model, steps=100, loss='ce', **shared),
                   torchattacks.APGDT(model, steps=100, n_classes=10, **shared),
                   torchattacks.FAB(model, steps=100, n_classes=10, multi_targeted=True, n_restarts=1, **shared),
                   torchattacks.Square(model, n_queries=5000, **shared))
        adversarial = images.clone()
        for member in members:
            for part in right(model, adversarial, labels, args.batch).nonzero().flatten().split(args.batch):
                adversarial[part] = member(images[part], labels[part]).detach()
        return adversarial
    return run


@torch.no_grad()
def right(model: nn.Module, images: Tensor, labels: Tensor, batch: int) -> Tensor:
    return torch.cat([model(part).argmax(1) for part in images.split(batch)]) == labels


def measure(method: Method, predictor: ClassifierPredictor, images: Tensor, labels: Tensor, args: argparse.Namespace
            ) -> tuple[dict[tuple[str, str], float], Tensor]:
    """Return {(metric, unit): value} of an attack, and which images it did not fool."""
    model = CountingPredictor(predictor).eval()
    wall, cpu = time.perf_counter(), time.process_time()
    adversarial = method(model, images, labels)
    values = {('CPU time', SECONDS): time.process_time() - cpu, ('wall time', SECONDS): time.perf_counter() - wall,
              ('forward passes', ''): model.forward_images / len(images),
              ('backward passes', ''): model.backward_images / len(images)}
    robust = right(model, adversarial, labels, args.batch)
    order = {'Linf': float('inf'), 'L2': 2, 'L1': 1}[args.norm]
    size = torch.linalg.vector_norm((adversarial - images).flatten(1), ord=order, dim=1).amax()
    return values | {('robust accuracy', ''): robust.float().mean().item(), ('largest size', ''): size.item()}, robust


def compare(epsilon: Fraction, args: argparse.Namespace, predictor: ClassifierPredictor, images: Tensor, labels: Tensor
            ) -> Iterator[Comparison]:
    peers = {'original': original if args.original else None,
             'torchattacks': torchattacks_members if args.torchattacks else None}
    what = 'AutoAttack, standard', f'{args.norm} {epsilon * 255}/255, {len(images)} images, {predictor.name}'
    mine, robust = measure(ours(args, float(epsilon)), predictor, images, labels, args)
    for peer, method in peers.items():
        if method is not None:
            found, standing = measure(method(args, float(epsilon)), predictor, images, labels, args)
            found['verdicts that differ', ''], mine['verdicts that differ', ''] = int((standing != robust).sum()), 0
            for (metric, unit), value in mine.items():
                yield Comparison(*what, metric, unit, Spread.of(value), peer, Spread.of(found[metric, unit]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', default='pit_ti(img_size=64,num_classes=10)')
    parser.add_argument('--weights', required=True)
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--original', type=Path)
    parser.add_argument('--torchattacks', action='store_true')
    parser.add_argument('--images', type=int, default=500)
    parser.add_argument('--norm', default='Linf')
    parser.add_argument('--epsilons', type=Fraction, nargs='+', default=[Fraction(2, 255), Fraction(8, 255)])
    parser.add_argument('--batch', type=int, default=250)
    parser.add_argument('--rows', type=int, help='searches side by side in ours, if not the default')
    args = parser.parse_args()
    torch.set_num_threads(1)
    predictor = build_classifier(args.model, weights=args.weights)
    samples = load_class_folders(args.data, view=predictor.view)
    chosen = torch.linspace(0, len(samples) - 1, args.images).long().tolist()  # evenly over the classes
    batch = predictor.collate([samples[index] for index in chosen])
    images, labels = batch.images, predictor.labels(batch)
    clean = right(CountingPredictor(predictor), images, labels, args.batch).float().mean().item()
    print(f'{len(images)} images of {tuple(images.shape[1:])}, clean accuracy {clean:.4f}', flush=True)
    for epsilon in args.epsilons:
        record('autoattack', compare(epsilon, args, predictor, images, labels))


if __name__ == '__main__':
    main()
