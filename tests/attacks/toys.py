"""Tiny classifiers for the attacks' tests: one trained in a second, and linear ones whose best attack is known."""

from functools import lru_cache

import torch
from torch import nn

from pit_downstream.utils.protocols import Batch, Sample
from pit_downstream.datasets.base import Preprocess
from pit_downstream.evaluation.classifier import ClassifierPredictor, Preparation
from pit_downstream.utils.rng import BatchRng

SIDE, CLASSES = 12, 4


def make_images(count, classes=CLASSES, seed=0):
    """Images (count, 3, SIDE, SIDE) in [0, 1] of smooth patterns, one per class, with noise; and their classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    phase = torch.arange(classes)[:, None] * torch.tensor([1.3, 2.1, .7])
    wave = torch.linspace(0, 6, SIDE)
    patterns = torch.sin(wave[:, None] + phase[..., None, None]) * torch.cos(wave * (1 + phase[..., None, None]))
    noise = torch.randn(count, 3, SIDE, SIDE, generator=generator)
    return (.5 + .12 * patterns[labels] + .1 * noise).clamp(0, 1), labels


class Double(nn.Module):
    """A model in float64, so that sums do not depend, to float32, on the batch an image is in."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner.double()

    def forward(self, images):
        return self.inner(images.double()).float()


class Exact(nn.Module):
    """A `Double` with its logits in float64. In float32 the softmax of a confident prediction leaves few digits of
    1 - p, so the direction of a gradient, and each sign in it, depends on the CPU and on how a loss is summed."""

    def __init__(self, model):
        super().__init__()
        self.inner = model.inner

    def forward(self, images):
        return self.inner(images.double())


class ExactPredictor(ClassifierPredictor):
    """Shows attacks the logits of an `Exact` as they are."""

    def logits(self, images):
        return self.model((images - self._mean) / self._std)


def convolutions(classes=CLASSES):
    return nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.GELU(),
                         nn.Conv2d(12, 16, 3, 2, 1), nn.GELU(),
                         nn.Dropout(.1), nn.Flatten(), nn.Linear(16 * 9, classes))


@lru_cache
def trained(classes=CLASSES):
    """A convolutional network that tells `images` apart; trained in float64, so the same one on every CPU."""
    state = torch.get_rng_state()
    torch.manual_seed(classes)
    model = convolutions(classes).double()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    images, labels = make_images(256, classes, seed=1)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images.double()), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    torch.set_rng_state(state)
    return Double(model).eval()


class Linear(nn.Module):
    """Logits (B, 2) = (0, w x - b): the least perturbation that turns a verdict is known in every norm."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(3 * SIDE * SIDE, generator=generator, dtype=torch.float64))
        self.bias = nn.Parameter(.5 * self.weight.detach().sum())

    def forward(self, images):
        score = images.double().flatten(1) @ self.weight - self.bias
        return torch.stack((torch.zeros_like(score), score), 1).float()


def predictor(model=None, classes=CLASSES, mean=0., std=1.):
    return ClassifierPredictor(trained(classes) if model is None else model,
                               Preparation(Preprocess(None, None), (mean,) * 3, (std,) * 3), name='tiny')


def exact_predictor():
    return ExactPredictor(Exact(trained()).eval(), Preparation(Preprocess(None, None), (0.,) * 3, (1.,) * 3),
                          name='exact')


def batch_of(images, labels, ids=None, valid=None):
    names = range(len(images)) if ids is None else ids
    if valid is None:
        valid = torch.ones(len(images), 1, *images.shape[2:], dtype=torch.bool)
    return Batch(images, valid, tuple(Sample(f'image{name}', None, int(label))
                                      for name, label in zip(names, labels, strict=True)))


def streams(batch, seed=0):
    return BatchRng(seed, [sample.id for sample in batch.samples], device=batch.images.device)


def attacked(attack, model, batch, seed=0):
    return attack(model, batch, streams(batch, seed))


def fooled(model, images, batch):
    return model.predict(images, batch).predictions.argmax(1) != model.labels(batch)


class Replay:
    """Streams whose fields a test gives, in the order in which they are drawn."""

    def __init__(self, *fields):
        self.fields = list(fields)

    def rows(self, images, tags, purpose, device):
        return self

    def uniform(self, shape):
        return self._next(shape)

    normal = uniform

    def _next(self, shape):
        field = self.fields.pop(0)
        assert tuple(field.shape) == tuple(shape)
        return field
