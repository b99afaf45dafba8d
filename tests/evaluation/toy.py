"""A tiny classifier by `tests.evaluation.toy:classifier`, and a folder of tiny images, for the loop's tests."""

import math
import multiprocessing
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from pit_downstream.utils.registry import CORRUPTIONS
from pit_downstream.datasets.base import Preprocess
from pit_downstream.datasets.imagenet import load_class_folders
from pit_downstream.datasets.labelsets import get_wnid_indices

NAME = 'tests.evaluation.toy:classifier'
FOUR = f'{NAME}(classes=4)'
DARK = (.9, .7, .5, .3, .1)
WNIDS = ('n01440764', 'n01443537', 'n01484850', 'n01491361')  # classes 0 to 3
SIDE = 32


class Toy(nn.Module):
    """Means of a 4 x 4 grid of cells, projected: enough to tell corruptions apart, quick enough for forty passes."""

    pretrained_cfg = {'input_size': (3, SIDE, SIDE), 'crop_pct': 0.8, 'interpolation': 'bilinear',
                      'mean': (0.5, 0.4, 0.3), 'std': (0.2, 0.2, 0.2)}

    def __init__(self, classes: int):
        super().__init__()
        self.pretrained_cfg = {**self.pretrained_cfg, 'label_names': tuple(get_wnid_indices())[:classes]}
        self.head = nn.Linear(48, classes, dtype=torch.float64)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(48, classes, generator=torch.Generator().manual_seed(3)).T)
            self.head.bias.zero_()

    def forward(self, images):
        # float64, so that the order of summation, which depends on the batch, is lost when logits become float32
        cells = nn.functional.adaptive_avg_pool2d(images.double(), 4).flatten(1)
        return self.head(cells).float()


@CORRUPTIONS.register('toy_noise', group='toy', strengths=(.1, .2, .3, .4, .5), source='this file')
def toy_noise(images, sigma, rng):
    """A corruption of one's own: add noise."""
    return images + sigma * rng.normal(images.shape)


@CORRUPTIONS.register('toy_dark', group='toy', strengths=DARK, source='this file')
def toy_dark(images, factor, rng):
    return images * factor


def classifier(classes: int = 8) -> nn.Module:
    return Toy(classes)


def no_classifier() -> str:
    return 'text'


def pictures(folder: Path, count: int = 40, side: tuple[int, int] = (48, 40)) -> Path:
    """`count` images over four classes below `folder`, smooth enough that JPEG hardly changes them."""
    random = np.random.default_rng(0)
    for index in range(count):
        coarse = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        path = folder / WNIDS[index % 4] / f'{index:02d}.JPEG'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize(side, Image.Resampling.BICUBIC).save(path, quality=95)
    return folder


def recognised(folder: Path, count: int = 40) -> Path:
    """`images` that `NAME(classes=4)` classifies as their folders say, but for every fifth."""
    drawn = load_class_folders(pictures(folder, count), view=Preprocess(SIDE, math.floor(SIDE / .8), 'bilinear'))
    mean, std = (torch.tensor(Toy.pretrained_cfg[key]).view(3, 1, 1) for key in ('mean', 'std'))
    for index, id in enumerate(drawn.ids):
        seen = classifier(4)(((drawn[index].image / 255 - mean) / std)[None]).argmax().item()
        target = folder / WNIDS[(seen + (index % 5 == 0)) % 4]
        target.mkdir(exist_ok=True)
        (folder / id).rename(target / Path(id).name)
    return folder


def started(work, *args):
    """A process of its own that does work(*args)."""
    process = multiprocessing.get_context('fork').Process(target=_alone, args=(work, *args))
    process.start()
    return process


def _alone(work, *args):
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    work(*args)
