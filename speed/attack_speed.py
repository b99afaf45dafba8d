"""Attacks against those of torchattacks with equal steps, model, images and budgets, on equal terms and by default.

python -m speed.attack_speed [--model 'pit_ti(img_size=64,num_classes=10)'] [--weights FILE --data DIR]
    [--images 64] [--steps 20] [--repeat 3] [--threads 2] [--quick]

all steps: every image takes every step, as in torchattacks. early exit: a fooled image leaves the batch, the default
of our attacks; the saving depends on the model. Without --weights and --data (a folder per class) the model is random,
the images are photographs, and the labels are the model's predictions. The sides alternate in one process; the median
counts.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pit_downstream.attacks.base import build_attack
from pit_downstream.utils.protocols import Batch, Sample
from pit_downstream.utils.spec import Spec
from pit_downstream.datasets.imagenet import load_class_folders
from pit_downstream.evaluation.classifier import ClassifierPredictor
from pit_downstream.evaluation.models import build_classifier
from pit_downstream.utils.rng import BatchRng
from speed.runner import DEVICE, bench_parser, record, time_sides
from speed.table import SECONDS, Comparison, Spread
from tests.corruptions.photographs import NAMES, photograph

PEER = 'torchattacks'
EPSILON = {'Linf': 8 / 255, 'L2': 0.5}  # as in RobustBench for CIFAR-10


class Logits(nn.Module):
    """Classifier of images in [0, 1], in the interface of torchattacks."""

    def __init__(self, predictor: ClassifierPredictor):
        super().__init__()
        self.inner, self.logits = predictor.model, predictor.logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(images)


def theirs(name: str, model: nn.Module, steps: int) -> Callable:
    import torchattacks
    linf, euclid = EPSILON['Linf'], EPSILON['L2']
    return {'fgsm': lambda: torchattacks.FGSM(model, eps=linf),
            'pgd Linf': lambda: torchattacks.PGD(model, eps=linf, alpha=2.5 * linf / steps, steps=steps),
            'pgd L2': lambda: torchattacks.PGDL2(model, eps=euclid, alpha=2.5 * euclid / steps, steps=steps),
            'mim': lambda: torchattacks.MIFGSM(model, eps=linf, alpha=linf / steps, steps=steps)}[name]()


def ours(name: str, steps: int, *, to_end: bool) -> Callable:
    spec, norm = name.split()[0], 'L2' if name.endswith('L2') else 'Linf'
    own = {} if spec == 'fgsm' else {'steps': steps}
    return build_attack(Spec.of(spec, norm=norm, epsilon=EPSILON[norm], run_to_end=to_end, **own))


def batch_of(predictor: ClassifierPredictor, data: str | None, count: int) -> Batch:
    """Return images labeled with the predictions of the model, so that every search starts from a correct image."""
    if data:
        samples = load_class_folders(data, view=predictor.view)
        chosen = [samples[index] for index in torch.linspace(0, len(samples) - 1, count).long().tolist()]
    else:
        side = predictor.view.size
        chosen = [Sample(str(number), torch.from_numpy(photograph(NAMES[number % len(NAMES)], (side, side)))
                         .permute(2, 0, 1).roll(number, 2), 0) for number in range(count)]
    batch = predictor.collate(chosen)
    found = predictor.predict(batch.images, batch).predictions.argmax(1).tolist()
    return Batch(batch.images, batch.valid, tuple(Sample(one.id, one.image, label)
                                                  for one, label in zip(chosen, found, strict=True)))


def compare(name: str, predictor: ClassifierPredictor, batch: Batch, steps: int, repeat: int) -> list[Comparison]:
    """Compare time per image and robust accuracy of an attack, with and without early exit."""
    labels, model = predictor.labels(batch), Logits(predictor).eval()
    rng = BatchRng(0, range(len(labels)), device=batch.images.device)

    def run(attack: Callable) -> Callable[[], Tensor]:
        return lambda: attack(predictor, batch, rng)
    sides = {'all steps': run(ours(name, steps, to_end=True)), 'early exit': run(ours(name, steps, to_end=False)),
             PEER: lambda: theirs(name, model, steps)(batch.images, labels)}
    times = {side: Spread.of(*(one / len(labels) for one in found))
             for side, found in time_sides(sides, repeat).items()}
    robust = {side: Spread.of((predictor.logits(work()).argmax(1) == labels).float().mean().item())
              for side, work in sides.items()}
    setting = f'an image of {len(labels)}, {predictor.name}'
    case = f'{name}, 1 step' if name == 'fgsm' else f'{name}, {steps} steps'
    return [Comparison(f'{case}, {side}', setting, metric, unit, found[side], PEER, found[PEER])
            for metric, unit, found in (('time', SECONDS, times), ('robust accuracy', '', robust))
            for side in ('early exit', 'all steps')]


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument('--model', default='pit_ti(img_size=64,num_classes=10)')
    parser.add_argument('--weights', default='random')
    parser.add_argument('--data', metavar='DIR')
    parser.add_argument('--images', type=int, default=64)
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--repeat', type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.quick:
        args.images, args.steps, args.repeat = 4, 3, 1
    predictor = build_classifier(args.model, weights=args.weights, device=DEVICE)
    predictor.model.requires_grad_(False)
    batch = batch_of(predictor, args.data, args.images)
    for name in ('fgsm', 'pgd Linf', 'pgd L2', 'mim'):
        record('attack_speed', compare(name, predictor, batch, args.steps, args.repeat), quick=args.quick)


if __name__ == '__main__':
    main()
