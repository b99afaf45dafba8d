"""The Backgrounds Challenge (Xiao et al. 2020, "Noise or Signal"): nine coarse classes with other backgrounds."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pit_downstream.utils.digests import hash_files, hash_text
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import DATASETS
from pit_downstream.utils.spec import Spec
from pit_downstream.datasets.base import ImageFolderSamples, Preprocess
from pit_downstream.datasets.folders import list_folders
from pit_downstream.datasets.shifts import (
    IN9_VARIATIONS,
    Shift,
    drop_resize,
    load_labeled_folders,
    require_layout,
)

# The first and last index of each run of ImageNet classes in a coarse class, from in_to_in9.json of
# MadryLab/backgrounds_challenge, in the order of its in9_classes.txt. The other 630 classes are in none.
_RUNS = {
    'dog': '151-170 173-268',
    'bird': '7-24 87-100 127-146',
    'vehicle': '407-408 428 436 444 468 511 547 555 561 565 569 573 586 603 609 612 627 656 661 665 670-671 675 690 '
               '705 717 734 751 757 791 802-803 817 820 829 847 864 866-867 870 880',
    'reptile': '33-68',
    'carnivore': '269-280 286-299 356-362 387-388',
    'insect': '300-326',
    'instrument': '401-402 420 432 486 494 513 541 546 558 566 577 579 593-594 641-642 683-684 687 699 776 822 875 881 '
                  '889',
    'primate': '365-384',
    'fish': '0-6 389-397',
}


def _parse_runs(runs: str) -> tuple[int, ...]:
    ends = [run.split('-') for run in runs.split()]
    return tuple(index for first, *last in ends for index in range(int(first), int((last or [first])[0]) + 1))


IN9 = {name: _parse_runs(runs) for name, runs in _RUNS.items()}


def make_variation_loader(name: str) -> Callable[..., Shift]:
    """Return the loader of a variation.

    Layout: root/<name>/val/<class>/*. Images are 224 x 224 and not resized. Predictions are among all 1000 classes.
    """
    def load(root: str | Path, *, view: Preprocess) -> Shift:
        folder = find_variation(Path(root), name)
        labels = dict(zip(list_class_folders(folder), IN9.values(), strict=True))
        return Shift(load_labeled_folders(folder, labels, f'in9_{name}', drop_resize(view), classes=len(IN9)))
    return load


for _name in IN9_VARIATIONS:
    DATASETS.register(f'in9_{_name}', title=f'IN-9 {_name}', folder='data/bg_challenge', images=None)(
        make_variation_loader(_name))


def find_variation(root: Path, name: str) -> Path:
    """Return root/<name>/val. Raises InputError if it does not exist."""
    require_layout(root, name in list_folders(root), f'the Backgrounds Challenge with a folder {name}')
    require_layout(root / name, 'val' in list_folders(root / name), 'the folder val of a variation')
    return root / name / 'val'


def list_class_folders(folder: Path) -> list[str]:
    """Return the nine class folders, sorted by name ('00_dog', '01_bird' ...), in the order of the classes.

    Raises InputError for another number of folders, or if the names indicate another order.
    """
    names = list_folders(folder)
    require_layout(folder, len(names) == len(IN9), 'nine class folders, from dog to fish,')
    for name, expected in zip(names, IN9, strict=True):
        mentioned = [label for label in IN9 if label in name.lower()]
        if mentioned and expected not in mentioned:
            raise InputError(f'The nine class folders of {folder} must be in the order {", ".join(IN9)}, got {name} '
                             f'instead of {expected}. Restore their published names.')
    return names


@dataclass(frozen=True)
class Challenge(Shift):
    """Foregrounds (`samples`) to paste on each of `backgrounds`. masks: folder of the foreground masks."""

    samples: ImageFolderSamples
    masks: Path = Path()
    backgrounds: ImageFolderSamples | None = None

    def load_mask(self, index: int) -> Tensor:
        """Load the mask of foreground `index`, bool (H, W)."""
        path = self.masks / Path(self.samples.ids[index]).with_suffix('.npy')
        mask = np.load(path)
        if mask.ndim != 2 or not np.isin(mask, (0, 1)).all():
            raise InputError(f'A mask must be an array (height, width) of zeros and ones, got shape {mask.shape} with '
                             f'values up to {mask.max()} in {path}. Unpack it again.')
        return torch.from_numpy(mask.astype(bool))


@DATASETS.register('in9_challenge', title='IN-9 challenge', folder='data/bg_challenge', images=None)
def load_challenge(root: str | Path, *, view: Preprocess) -> Challenge:
    """Load the challenge: masks in root/fg_mask/val/<class>/*.npy, images in original, backgrounds in only_bg_t."""
    root, view = Path(root), drop_resize(view)
    images, masks = find_variation(root, 'original'), find_variation(root, 'fg_mask')
    labeled = [(f'{folder}/{mask.stem}.JPEG', indices)
               for folder, indices in zip(list_class_folders(masks), IN9.values(), strict=True)
               for mask in sorted((masks / folder).glob('*.npy'))]
    missing = [id for id, _ in labeled if not (images / id).is_file()]
    if missing or not labeled:
        raise InputError(f'{len(missing)} of {len(labeled)} masks in {masks} have no image in {images}: '
                         f'{", ".join(missing[:3])}. Unpack both again.')
    folder = find_variation(root, 'only_bg_t')
    backgrounds = load_labeled_folders(folder, dict(zip(list_class_folders(folder), IN9.values(), strict=True)),
                                       'backgrounds', view)
    ids, targets = zip(*labeled, strict=True)
    name = str(Spec.of('in9_challenge', classes=len(IN9), backgrounds=len(backgrounds),
                       background_files=backgrounds.files, mask_files=hash_text(*hash_files(
                           [masks / Path(id).with_suffix('.npy') for id in ids], unreadable='unreadable'))))
    samples = ImageFolderSamples(images, ids, targets, view=view, name=name)
    return Challenge(samples, masks=masks, backgrounds=backgrounds)
