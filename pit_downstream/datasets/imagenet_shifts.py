"""ImageNet-A, -R, -Sketch, -V2, ReaL and Stylized ImageNet: other images or other labels for ImageNet's classes."""

from collections.abc import Callable, Collection
from pathlib import Path

from pit_downstream.utils.protocols import Sample
from pit_downstream.utils.registry import DATASETS
from pit_downstream.datasets.base import View
from pit_downstream.datasets.folders import folders_in
from pit_downstream.datasets.labelsets import Classes, real_labels, subset_indices
from pit_downstream.datasets.shift import (
    VAL,
    Shift,
    answered,
    as_published,
    is_validation,
    of_thousand,
    require_folders,
)


@DATASETS.register('imagenet_a', title='ImageNet-A', place='data/imagenet-a', images=7500)
def imagenet_a(root: str | Path, *, view: View) -> Shift:
    """Load ImageNet-A (Hendrycks et al. 2021, "Natural Adversarial Examples").

    Layout: root/<wnid>/*, 200 classes. Predictions are among these 200.
    """
    return _two_hundred('imagenet_a', Path(root), view)


@DATASETS.register('imagenet_r', title='ImageNet-R', place='data/imagenet-r', images=30000)
def imagenet_r(root: str | Path, *, view: View) -> Shift:
    """Load ImageNet-R (Hendrycks et al. 2021, "The Many Faces of Robustness").

    Layout: root/<wnid>/*, 200 classes (a different set from ImageNet-A). Predictions are among these 200.
    """
    return _two_hundred('imagenet_r', Path(root), view)


@DATASETS.register('imagenet_sketch', title='ImageNet-Sketch', place='data/imagenet-sketch', images=50000)
def imagenet_sketch(root: str | Path, *, view: View) -> Shift:
    """Load ImageNet-Sketch (Wang et al. 2019, "Learning Robust Global Representations").

    Layout: root/<wnid>/*, all 1000 classes.
    """
    names = folders_in(Path(root))
    return _thousand('imagenet_sketch', Path(root), view, of_thousand(names) and not is_validation(Path(root)))


def imagenet_v2(name: str) -> Callable[..., Shift]:
    """Return the loader of an ImageNet-V2 variant (Recht et al. 2019).

    Folders are '0'..'999' (matched by number, as text order would mislabel them), '0000'..'0999', or WordNet ids.
    """
    def opened(root: str | Path, *, view: View) -> Shift:
        names = folders_in(Path(root))
        by_number = bool(names) and all(one.isdecimal() and int(one) < 1000 for one in names)
        fits = by_number or of_thousand(names) and not is_validation(Path(root))
        return _thousand(name, Path(root), view, fits)
    return opened


for _variant in ('matched-frequency', 'threshold0.7', 'top-images'):
    _name = f'imagenet_v2_{_variant.replace("-", "_")}'
    DATASETS.register(_name, title=f'ImageNet-V2 {_variant}', place=f'data/imagenetv2-{_variant}-format-val',
                      images=10000)(imagenet_v2(_name))


@DATASETS.register('imagenet_real', title='ReaL', place=None, images=46837)
def imagenet_real(root: None = None, *, view: View | None = None) -> Shift:
    """Load ReaL (Beyer et al. 2020): several labels per ImageNet validation image, by image number.

    No files are needed. The 3,163 images without a label are excluded, also from the clean error.
    """
    labels = real_labels()

    def several(sample: Sample) -> tuple[int, ...]:
        return labels[_number(sample.id) - 1]

    def original(sample: Sample) -> tuple[int, ...]:
        return (sample.target,) if several(sample) else ()
    return Shift(None, on_clean={'imagenet_real_error': several, 'imagenet_real_clean_error': original})


@DATASETS.register('imagenet_stylized', title='Stylized ImageNet', place='data/imagenet-stylized', images=50000)
def imagenet_stylized(root: str | Path, *, view: View) -> Shift:
    """Load Stylized ImageNet (Geirhos et al. 2019): validation images in the style of paintings.

    Layout: root/<wnid>/*. Images are 224 x 224 and not resized. They are not published. Generate them with
    rgeirhos/Stylized-ImageNet.
    """
    return _thousand('imagenet_stylized', Path(root), as_published(view), of_thousand(folders_in(Path(root))))


def within(classes: Collection[int]) -> Callable[[Sample], tuple[int, ...]]:
    """Return a function that gives the target for images of `classes`, and () for other images."""
    return lambda sample: (sample.target,) if sample.target in classes else ()


def _two_hundred(name: str, root: Path, view: View) -> Shift:
    indices, names = subset_indices(name), folders_in(root)
    fits = bool(names) and set(names) <= indices.keys()
    require_folders(root, fits, f'{DATASETS.entry(name).about["title"]}, folders named by its 200 WordNet ids,')
    classes = tuple(sorted(indices.values()))
    samples = answered(root, {one: (indices[one],) for one in names}, name, view, classes=len(classes))
    return Shift(samples, classes, {f'{name}_clean_error': within(frozenset(classes))})


def _thousand(name: str, root: Path, view: View, fits: bool) -> Shift:
    require_folders(root, fits, f'{DATASETS.entry(name).about["title"]}, folders named by the 1000 classes,')
    indices = Classes(1000).indices(folders_in(root))
    return Shift(answered(root, {one: (index,) for one, index in indices.items()}, name, view))


def _number(id: str) -> int:
    found = VAL.search(id)
    if not found or not 1 <= int(found[1]) <= 50_000:
        raise ValueError('expected images named ILSVRC2012_val_00000001 to ILSVRC2012_val_00050000, by which ReaL '
                         f'has its labels, got {id}; give ImageNet\'s validation images with --data, or leave out '
                         'imagenet_real')
    return int(found[1])
