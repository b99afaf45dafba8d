"""ObjectNet (Barbu et al. 2019): household objects from unusual viewpoints. ImageNet shares 113 of its classes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from pit_downstream.utils.protocols import Sample
from pit_downstream.utils.registry import DATASETS
from pit_downstream.datasets.base import View
from pit_downstream.datasets.folders import folders_in
from pit_downstream.datasets.shift import Shift, answered, require_folders

BORDER = 2  # pixels of the frame around every image, removed at the authors' request, as in easyrobust


@DATASETS.register('objectnet', title='ObjectNet', place='data/objectnet-1.0', images=None)
def objectnet(root: str | Path, *, view: View) -> Shift:
    """Load root/images/<object>/*.png of the classes shared with ImageNet, which are listed in root/mappings.

    Predictions are among all 1000 classes, and correct if the object maps to the predicted class.
    """
    root = Path(root)
    require_folders(root, {'images', 'mappings'} <= set(folders_in(root)),
                    'ObjectNet as its archive holds it, folders images and mappings,')
    shared = shared_classes(root / 'mappings')
    folders = {name: shared[name] for name in folders_in(root / 'images') if name in shared}
    require_folders(root / 'images', bool(folders), f'some of the {len(shared)} folders of objects that ImageNet knows')
    answers = {index: indices for indices in shared.values() for index in indices}
    samples = answered(root / 'images', folders, 'objectnet', replace(view, border=BORDER), classes=len(shared))

    def same_object(sample: Sample) -> tuple[int, ...]:
        return answers.get(sample.target, ())
    return Shift(samples, on_clean={'objectnet_clean_error': same_object})


def shared_classes(mappings: Path) -> dict[str, tuple[int, ...]]:
    """Return the class indices 0..999 by folder name, from the four files of the archive.

    The files contain ImageNet's class names. imagenet_to_label_2012_v2 lists them in the order of the development kit.
    pytorch_to_imagenet_2012_id.json has the line number, from 0, of each class index.
    """
    words = _read(mappings / 'imagenet_to_label_2012_v2').splitlines()
    lines = _read_json(mappings / 'pytorch_to_imagenet_2012_id.json')
    folders = _read_json(mappings / 'folder_to_objectnet_label.json')
    labels = _read_json(mappings / 'objectnet_to_imagenet_1k.json')
    try:
        index = {words[line].strip(): int(text) for text, line in lines.items()}
        folder = {label: name for name, label in folders.items()}
        return {folder[label]: tuple(sorted(index[one] for one in text.split('; '))) for label, text in labels.items()}
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f'expected the four files of ObjectNet\'s archive in {mappings}, which name each other\'s '
                         f'classes, got a stranger in one of them ({error}); unpack them anew') from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read(path))
    except ValueError as error:
        raise ValueError(f'expected JSON in {path}, got: {error}; unpack it anew from ObjectNet\'s archive') from error


def _read(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f'expected {path}, found no such file; it is in ObjectNet\'s archive, in mappings/')
    return path.read_text()
