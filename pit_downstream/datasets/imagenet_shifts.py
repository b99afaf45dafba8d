"""Published shifts of ImageNet: other images or other labels for its classes.

ImageNet-A, -R, -Sketch, -V2, ReaL, Stylized ImageNet and ObjectNet.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pit_downstream.datasets.base import Preprocess
from pit_downstream.datasets.folders import list_folders
from pit_downstream.datasets.labelsets import Classes, get_subset_indices, load_real_labels
from pit_downstream.datasets.shifts import (
    VALIDATION_NAME,
    Shift,
    drop_resize,
    filter_targets,
    is_imagenet_1k,
    is_imagenet_validation,
    load_labeled_folders,
    require_layout,
)
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Sample
from pit_downstream.utils.registry import DATASETS

OBJECTNET_BORDER = 2  # pixels of the frame around every image, removed at the authors' request, as in easyrobust


@DATASETS.register('imagenet_a', title='ImageNet-A', folder='data/imagenet-a', images=7500)
def load_imagenet_a(root: str | Path, *, view: Preprocess) -> Shift:
    """Load ImageNet-A (Hendrycks et al. 2021, "Natural Adversarial Examples").

    Layout: root/<wnid>/*, 200 classes. Predictions are among these 200.
    """
    return _load_200_classes('imagenet_a', Path(root), view)


@DATASETS.register('imagenet_r', title='ImageNet-R', folder='data/imagenet-r', images=30000)
def load_imagenet_r(root: str | Path, *, view: Preprocess) -> Shift:
    """Load ImageNet-R (Hendrycks et al. 2021, "The Many Faces of Robustness").

    Layout: root/<wnid>/*, 200 classes (a different set from ImageNet-A). Predictions are among these 200.
    """
    return _load_200_classes('imagenet_r', Path(root), view)


@DATASETS.register('imagenet_sketch', title='ImageNet-Sketch', folder='data/imagenet-sketch', images=50000)
def load_imagenet_sketch(root: str | Path, *, view: Preprocess) -> Shift:
    """Load ImageNet-Sketch (Wang et al. 2019, "Learning Robust Global Representations").

    Layout: root/<wnid>/*, all 1000 classes.
    """
    root = Path(root)
    return _load_1000_classes('imagenet_sketch', root, view,
                              is_imagenet_1k(list_folders(root)) and not is_imagenet_validation(root))


def make_imagenet_v2_loader(name: str) -> Callable[..., Shift]:
    """Return the loader of an ImageNet-V2 variant (Recht et al. 2019).

    Folders are '0'..'999' (matched by number, as text order would mislabel them), '0000'..'0999', or WordNet ids.
    """
    def load(root: str | Path, *, view: Preprocess) -> Shift:
        names = list_folders(Path(root))
        by_number = bool(names) and all(folder.isdecimal() and int(folder) < 1000 for folder in names)
        fits = by_number or is_imagenet_1k(names) and not is_imagenet_validation(Path(root))
        return _load_1000_classes(name, Path(root), view, fits)
    return load


for _variant in ('matched-frequency', 'threshold0.7', 'top-images'):
    _name = f'imagenet_v2_{_variant.replace("-", "_")}'
    DATASETS.register(_name, title=f'ImageNet-V2 {_variant}', folder=f'data/imagenetv2-{_variant}-format-val',
                      images=10000)(make_imagenet_v2_loader(_name))


@DATASETS.register('imagenet_real', title='ReaL', folder=None, images=46837)
def load_imagenet_real(root: None = None, *, view: Preprocess | None = None) -> Shift:
    """Load ReaL (Beyer et al. 2020): several labels per ImageNet validation image, by image number.

    No files are needed. The 3,163 images without a label are excluded, also from the clean error.
    """
    labels = load_real_labels()

    def get_real_labels(sample: Sample) -> tuple[int, ...]:
        match = VALIDATION_NAME.search(sample.id)
        if not match or not 1 <= int(match[1]) <= 50_000:
            raise InputError('ReaL has labels of images named ILSVRC2012_val_00000001 to ILSVRC2012_val_00050000, got '
                             f"{sample.id}. Pass ImageNet's validation images with --data, or omit imagenet_real.")
        return labels[int(match[1]) - 1]

    def get_original_label(sample: Sample) -> tuple[int, ...]:
        return (sample.target,) if get_real_labels(sample) else ()
    return Shift(None, clean_labels={'imagenet_real_error': get_real_labels,
                                     'imagenet_real_clean_error': get_original_label})


@DATASETS.register('imagenet_stylized', title='Stylized ImageNet', folder='data/imagenet-stylized', images=50000)
def load_imagenet_stylized(root: str | Path, *, view: Preprocess) -> Shift:
    """Load Stylized ImageNet (Geirhos et al. 2019): validation images in the style of paintings.

    Layout: root/<wnid>/*. Images are 224 x 224 and not resized. They are not published. Generate them with
    rgeirhos/Stylized-ImageNet.
    """
    return _load_1000_classes('imagenet_stylized', Path(root), drop_resize(view),
                              is_imagenet_1k(list_folders(Path(root))))


@DATASETS.register('objectnet', title='ObjectNet', folder='data/objectnet-1.0', images=None)
def load_objectnet(root: str | Path, *, view: Preprocess) -> Shift:
    """Load ObjectNet (Barbu et al. 2019): household objects from unusual viewpoints.

    Layout: root/images/<object>/*.png. Only the 113 classes shared with ImageNet are used, which root/mappings lists.
    Predictions are among all 1000 classes, and correct if the object maps to the predicted class.
    """
    root = Path(root)
    require_layout(root, {'images', 'mappings'} <= set(list_folders(root)),
                   "the content of ObjectNet's archive, folders images and mappings,")
    shared = read_objectnet_classes(root / 'mappings')
    folders = {name: shared[name] for name in list_folders(root / 'images') if name in shared}
    require_layout(root / 'images', bool(folders), f'some of the {len(shared)} folders of classes shared with ImageNet')
    labels = {index: indices for indices in shared.values() for index in indices}
    samples = load_labeled_folders(root / 'images', folders, 'objectnet', replace(view, border=OBJECTNET_BORDER),
                                   classes=len(shared))
    return Shift(samples, clean_labels={'objectnet_clean_error': lambda sample: labels.get(sample.target, ())})


def read_objectnet_classes(mappings: Path) -> dict[str, tuple[int, ...]]:
    """Return the class indices 0..999 by folder name, from the four files of the archive.

    The files contain ImageNet's class names. imagenet_to_label_2012_v2 lists them in the order of the development kit.
    pytorch_to_imagenet_2012_id.json has the line number, from 0, of each class index.
    """
    contents: dict[str, Any] = {}
    for name in ('imagenet_to_label_2012_v2', 'pytorch_to_imagenet_2012_id.json', 'folder_to_objectnet_label.json',
                 'objectnet_to_imagenet_1k.json'):
        path = mappings / name
        if not path.is_file():
            raise InputError(f"No file {path}. Unpack it from ObjectNet's archive, where it is in mappings/.")
        try:
            contents[name] = json.loads(path.read_text()) if path.suffix == '.json' else path.read_text().splitlines()
        except ValueError as error:
            raise InputError(f"{path} is not valid JSON: {error}. Unpack it again from ObjectNet's archive.") from error
    names, lines, folders, labels = contents.values()
    try:
        index = {names[line].strip(): int(text) for text, line in lines.items()}
        folder = {label: name for name, label in folders.items()}
        return {folder[label]: tuple(sorted(index[name] for name in text.split('; ')))
                for label, text in labels.items()}
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"The four files of ObjectNet's archive in {mappings} do not match each other: {error}. "
                         'Unpack them again.') from error


def _load_200_classes(name: str, root: Path, view: Preprocess) -> Shift:
    indices, names = get_subset_indices(name), list_folders(root)
    fits = bool(names) and set(names) <= indices.keys()
    require_layout(root, fits, f'{DATASETS.get_entry(name).metadata["title"]}, folders named by its 200 WordNet ids,')
    classes = tuple(sorted(indices.values()))
    samples = load_labeled_folders(root, {folder: (indices[folder],) for folder in names}, name, view,
                                   classes=len(classes))
    return Shift(samples, classes, {f'{name}_clean_error': filter_targets(classes)})


def _load_1000_classes(name: str, root: Path, view: Preprocess, fits: bool) -> Shift:
    require_layout(root, fits, f'{DATASETS.get_entry(name).metadata["title"]}, folders named by the 1000 classes,')
    indices = Classes(1000).indices(list_folders(root))
    return Shift(load_labeled_folders(root, {folder: (index,) for folder, index in indices.items()}, name, view))
