"""Shifted datasets in the classes of a clean one, and recognition of unexpected folders for error messages."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pit_downstream.utils.protocols import Sample
from pit_downstream.utils.spec import Spec, Value
from pit_downstream.datasets.base import ImageFolderSamples, View
from pit_downstream.datasets.folders import folders_in, images_by_class, images_in
from pit_downstream.datasets.labelsets import subset_indices, wnid_indices

IN9_VARIATIONS = ('original', 'mixed_same', 'mixed_rand', 'mixed_next', 'only_fg', 'no_fg', 'only_bg_b', 'only_bg_t')
VAL = re.compile(r'ILSVRC2012_val_(\d{8})')


@dataclass(frozen=True)
class Shift:
    """Loaded shifted dataset: its images and the definition of a correct prediction.

    samples: images, with all correct class indices as targets. None for a dataset without images (ReaL relabels
    ImageNet).
    classes: candidate class indices of a prediction, None for all classes of the model.
    on_clean: metrics on the clean images (of ImageNet, for a published dataset) by name, each with its function from
    sample to correct class indices. They measure the same task on clean images of the matching classes.
    """

    samples: ImageFolderSamples | None
    classes: tuple[int, ...] | None = None
    on_clean: Mapping[str, Callable[[Sample], tuple[int, ...]]] = field(default_factory=dict)


def answered(root: Path, folders: Mapping[str, Iterable[int]], name: str, view: View, /,
             **words: Value) -> ImageFolderSamples:
    """Load the images of the folders below `root`, each with the class indices of its folder as correct answers.

    name, words: name and arguments of the Spec under which records are kept.
    """
    found = [(f'{folder}/{picture}', tuple(folders[folder])) for folder, pictures in
             images_by_class(root, folders).items() for picture in pictures]
    if not found:
        raise ValueError(f'expected images in the {len(folders)} folders of {root}, found none')
    ids, targets = zip(*found, strict=True)
    return ImageFolderSamples(root, ids, targets, view=view, name=str(Spec.of(name, **words)))


def as_published(view: View) -> View:
    """Return the view for images published as 224 x 224 crops. They are resized only for models of another size."""
    return replace(view, resize=None if view.size in (None, 224) else view.size)


def require_folders(root: Path, fits: bool, expected: str) -> None:
    """Raise ValueError with a description of `root` unless `fits`."""
    if not fits:
        raise ValueError(f'expected {expected} in {root}; this looks like {recognise(root)}')


def require_imagenet(root: Path) -> None:
    """Raise ValueError unless `root` has ImageNet's class folders. The gap of ImageNet-A to itself would be 0."""
    require_folders(root, of_thousand(folders_in(root)),
                    "ImageNet's validation images in folders of the 1000 classes")


def of_thousand(names: list[str]) -> bool:
    """Return whether folder names are of the 1000 classes, and not exactly the 200 of ImageNet-A or -R."""
    subsets = (subset_indices(name).keys() for name in ('imagenet_a', 'imagenet_r'))
    return bool(names) and set(names) <= wnid_indices().keys() and all(set(names) != subset for subset in subsets)


def recognise(root: Path) -> str:
    """Describe the dataset in a folder: 'ImageNet-R: 200 folders named by WordNet id'."""
    names = folders_in(root)
    if {'images', 'mappings'} <= set(names):
        return 'ObjectNet: folders images and mappings'
    if set(IN9_VARIATIONS[1:3]) <= set(names):
        return 'the Backgrounds Challenge: a folder for each variation'
    if names and set(names) <= wnid_indices().keys():
        return _of_wordnet(root, names)
    if names and all(map(str.isdecimal, names)):
        return f'ImageNet-V2: {len(names)} folders with numbers as names'
    if len(names) == 1:
        return f'a folder around {names[0]}, which looks like {recognise(root / names[0])}'
    if not names:
        return f'{len(images_in(root))} images without class folders'
    return f'{len(names)} folders ({", ".join(names[:3])}{" ..." * (len(names) > 3)})'


def _of_wordnet(root: Path, names: list[str]) -> str:
    folders = f'{len(names)} folder{"s" * (len(names) > 1)} named by WordNet id'
    for subset, title in (('imagenet_a', 'ImageNet-A'), ('imagenet_r', 'ImageNet-R')):
        if set(names) == subset_indices(subset).keys():
            return f'{title}: {folders}'
    in_a, in_r = (set(names) <= subset_indices(subset).keys() for subset in ('imagenet_a', 'imagenet_r'))
    if in_a != in_r:
        return f'a part of ImageNet-{"A" if in_a else "R"}: {folders}'
    if is_validation(root):
        return f"ImageNet's validation images: {folders}"
    return f'classes of ImageNet-1k: {folders}'


def is_validation(root: Path) -> bool:
    """Return whether the first image of the first class (or of a flat folder) has an ImageNet validation name."""
    pictures = images_in(root.joinpath(*folders_in(root)[:1]))
    return bool(pictures) and VAL.match(pictures[0]) is not None
