"""Train a small classifier on CIFAR-10 for the tables of corruptions and attacks that need a trained model.

python -m speed.cifar10 --data DIR --out work_dirs/pit_ti_cifar10.pth
python -m speed.cifar10 --data DIR --out work_dirs/deepvit_16_cifar10.pth \\
    --model 'deepvit_16(img_size=64,num_classes=10)' --epochs 4 --lr 5e-4 --bf16

--data: a folder per class under train/ and test/. --out: the weights, a plain state dict. FILE.state beside it resumes
an interrupted run. Every tool takes the weights with --model MODEL --weights FILE. Images are preprocessed as in the
tools (the model's configuration). In training they are cropped at random, and half of them are flipped.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speed.collapse import groups, learning_rate_factor
from pit_downstream.datasets.base import ImageFolderSamples, Preprocess
from pit_downstream.datasets.imagenet import load_class_folders
from pit_downstream.evaluation.classifier import ClassifierPredictor
from pit_downstream.evaluation.models import build_classifier

SMOOTHING = 0.1  # label smoothing
CLIP = 1.0  # gradient norm


def read(samples: ImageFolderSamples) -> tuple[Tensor, Tensor]:
    """Return images, uint8 (n, 3, H, W), and labels (n,)."""
    return torch.stack([samples[i].image for i in range(len(samples))]), torch.tensor(samples.targets)


def augmented(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Return a random `side` x `side` crop of each image, half of them flipped: float (B, 3, side, side) in [0, 1]."""
    room = images.shape[-1] - side + 1
    rows, columns = torch.randint(room, (2, len(images)), generator=generator).tolist()
    parts = torch.stack([one[:, y:y + side, x:x + side] for one, y, x in zip(images, rows, columns, strict=True)])
    mirror = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirror[:, None, None, None], parts.flip(-1), parts).float().div_(255)


class Training:
    """Training run that can be interrupted after any epoch."""

    def __init__(self, predictor: ClassifierPredictor, args: argparse.Namespace):
        self.model, self.args = predictor.model, args
        self.normalize = lambda images: (images - predictor._mean) / predictor._std
        self.optim = torch.optim.AdamW(groups(self.model), args.lr)
        self.epoch, self.kept = 0, args.out.with_suffix('.state')
        if self.kept.exists():
            state = torch.load(self.kept, weights_only=True)
            self.model.load_state_dict(state['model'])
            self.optim.load_state_dict(state['optim'])
            self.epoch = state['epoch']

    def run(self, images: Tensor, labels: Tensor, side: int) -> None:
        size, steps = self.args.batch_size, len(images) // self.args.batch_size
        for epoch in range(self.epoch, self.args.epochs):
            generator, start, total = torch.Generator().manual_seed(self.args.seed * 1000 + epoch), time.time(), 0.0
            order = torch.randperm(len(images), generator=generator)
            for step in range(steps):
                chosen = order[step * size:(step + 1) * size]
                for group in self.optim.param_groups:
                    group['lr'] = self.args.lr * learning_rate_factor(epoch * steps + step, self.args.epochs * steps)
                total += self._learn(augmented(images[chosen], side, generator), labels[chosen])
            print(f'epoch {epoch + 1} loss {total / steps:.3f} in {time.time() - start:.0f} s', flush=True)
            self._save(epoch + 1)

    def _learn(self, images: Tensor, labels: Tensor) -> float:
        with torch.autocast('cpu', torch.bfloat16, enabled=self.args.bf16):
            loss = F.cross_entropy(self.model(self.normalize(images)), labels, label_smoothing=SMOOTHING)
        self.optim.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optim.step()
        return loss.item()

    def _save(self, epoch: int) -> None:
        state = {'model': self.model.state_dict(), 'optim': self.optim.state_dict(), 'epoch': epoch}
        torch.save(state, self.kept.with_suffix('.new'))
        os.replace(self.kept.with_suffix('.new'), self.kept)


@torch.inference_mode()
def accuracy(predictor: ClassifierPredictor, images: Tensor, labels: Tensor) -> float:
    hits = [(predictor.logits(part.float() / 255).argmax(1) == want).float()
            for part, want in zip(images.split(100), labels.split(100), strict=True)]
    return float(np.mean(torch.cat(hits).numpy()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--model', default='pit_ti(img_size=64,num_classes=10)')
    parser.add_argument('--epochs', type=int, default=14)
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--lr', type=float, default=1e-3)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--bf16', action='store_true', help='autocast, faster for the wider models')
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    predictor = build_classifier(args.model, weights='random', seed=args.seed)
    view = predictor.view
    train = read(load_class_folders(args.data / 'train', view=Preprocess(view.resize, view.resize, view.interpolation)))
    training = Training(predictor, args)
    predictor.model.train()
    training.run(*train, view.size)
    predictor.model.eval()
    torch.save(predictor.model.state_dict(), args.out)
    test = read(load_class_folders(args.data / 'test', view=view))
    print(f'{args.out}: accuracy {accuracy(predictor, *test):.4f} on {len(test[1])} test images')


if __name__ == '__main__':
    main()
