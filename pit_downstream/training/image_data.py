"""Training and evaluation datasets and samplers for mmengine's loaders."""

import logging
from collections.abc import Callable, Sequence
from itertools import chain

import torch
from mmengine.dist import get_dist_info
from mmengine.logging import print_log
from mmengine.registry import DATA_SAMPLERS, DATASETS, FUNCTIONS
from PIL import Image
from timm.data import auto_augment, create_transform
from timm.data.distributed_sampler import RepeatAugSampler
from torch.utils.data import Dataset

from pit_downstream.datasets.base import Preprocess, UnreadableImage, load_image
from pit_downstream.datasets.folders import list_folders
from pit_downstream.datasets.imagenet import load_class_folders
from pit_downstream.datasets.labelsets import Classes, sort_training_classes
from pit_downstream.training.metric import UNREADABLE
from pit_downstream.utils.errors import InputError


class FolderImages(Dataset):
    """Images in root/<class>/*.

    `classes` are class names in the order of the network's outputs, by default the folder names. An item is {'images':
    uint8 (3, H, W), 'labels': class index}. mmengine stores `metainfo` in checkpoints.
    """

    def __init__(self, root: str, view: dict, classes: Sequence[str] | None = None):
        names = tuple(classes or sort_training_classes(list_folders(root)))
        self.samples = load_class_folders(root, view=Preprocess(**view), classes=Classes(len(names), names))
        self.metainfo = {'classes': names}
        self._reported: set[str] = set()

    def __len__(self) -> int:
        return len(self.samples)

    def _report(self, error: UnreadableImage, consequence: str) -> None:
        """Log an unreadable image, once per worker."""
        if error.id not in self._reported:
            self._reported.add(error.id)
            print_log(f'{error}: {consequence}', logger='current', level=logging.WARNING)


@DATASETS.register_module()
class EvaluationImages(FolderImages):
    """Images preprocessed as in the evaluation tools. `view` has the arguments of View.

    An unreadable image is logged and replaced by a black one with the label UNREADABLE, which `TopAccuracy` excludes
    and counts.
    """

    def __getitem__(self, index: int) -> dict:
        try:
            sample = self.samples[index]
        except UnreadableImage as error:
            self._report(error, 'left out of the accuracy')
            side = self.samples.view.size or 1
            return {'images': torch.zeros(3, side, side, dtype=torch.uint8), 'labels': UNREADABLE}
        return {'images': sample.image, 'labels': sample.target}


@DATASETS.register_module()
class TrainingImages(FolderImages):
    """Images with timm's random ImageNet transforms.

    `transform` has arguments of timm.data.create_transform: scale, ratio, hflip, auto_augment, color_jitter,
    interpolation. An unreadable image is logged and replaced by the next one.
    """

    def __init__(self, root: str, transform: dict, classes: Sequence[str] | None = None):
        super().__init__(root, {}, classes)
        self.transform = create_training_transform(**transform)

    def __getitem__(self, index: int) -> dict:
        for place in (*range(index, len(self)), *range(index)):
            path = self.samples.root / self.samples.ids[place]
            try:
                image = load_image(path)
            except UnreadableImage as error:
                self._report(error, 'another image is trained on in its place')
                continue
            return {'images': torch.as_tensor(self.transform(image)), 'labels': self.samples.targets[place]}
        raise InputError(f'expected images in {self.samples.root}, got {len(self)} files of which none decodes')


def create_training_transform(**options) -> Callable:
    """Create timm's training transform, from an RGB image to uint8 (3, H, W), for any Pillow version.

    `options` are those of timm.data.create_transform. timm's Posterize operations may keep 0 bits, which Pillow before
    13 turns into black and Pillow 13 rejects. Only the operations of this transform are replaced. timm and Pillow are
    not modified.
    """
    transform = create_transform(is_training=True, use_prefetcher=True, **options)  # returns uint8
    for part in transform.transforms:
        policies = [getattr(part, 'ops', ()), *getattr(part, 'policy', ())]  # RandAugment, AugMix; AutoAugment
        for operation in chain.from_iterable(policies):
            if operation.aug_fn is auto_augment.posterize:
                operation.aug_fn = posterize
    return transform


def posterize(image: Image.Image, bits: int, **options) -> Image.Image:
    """Keep the highest `bits` bits of each channel. With 0 the image is black."""
    return auto_augment.posterize(image, bits, **options) if bits else Image.new(image.mode, image.size)


@DATA_SAMPLERS.register_module()
class RepeatedAugmentation(RepeatAugSampler):
    """timm's sampler for repeated augmentation (Hoffer et al. 2020, Berman et al. 2019) on mmengine's ranks.

    Each selected image occurs `num_repeats` times with different augmentations. The length of an epoch does not change.
    In timm, the first epoch of every run has the same order. Here the order also depends on `seed`. `options` are those
    of timm's sampler, e.g. selected_round=0 for datasets that 256 does not divide.
    """

    def __init__(self, dataset: Dataset, seed: int | None = None, num_repeats: int = 3, **options):
        rank, world = get_dist_info()
        super().__init__(dataset, world, rank, num_repeats=num_repeats, **options)
        self._seed = seed or 0
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(self._seed + epoch)


@FUNCTIONS.register_module()
def skip_worker_seeding(worker: int) -> None:
    """Replace mmengine's worker_init_fn, which would give workers the same seeds in every epoch.

    In each worker, torch seeds random, numpy and itself from a number drawn anew for every epoch.
    """
