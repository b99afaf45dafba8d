"""Bundled dataset on disk: COCO-format detection, and one folder per class for classification.

    python -m pit_downstream.datasets.shapes data/shapes
    python -m pit_downstream.datasets.shapes data/shapes_faint --contrast 0.3

Pixels and annotations depend only on the parameters. The bytes of a PNG file also depend on the version of zlib.
"""
from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from pit_downstream.datasets.scenes import CLASSES, Scene, check_contrast, draw_object, draw_scene
from pit_downstream.utils.errors import InputError

__all__ = ['CLASSES', 'Scene', 'draw_object', 'draw_scene', 'write_shapes']

ROOT = 'data/shapes'  # of the configs in configs/_base_/, too
VERSION = 3  # increment when any image changes, so that sets on disk are redrawn
STAMP = 'shapes.json'
OBJECT_SIZE = 64
Parameters = dict[str, Any]  # version, seed, size, numbers of images, contrast
LEAST = {'version': 0, 'seed': 0, 'size': 96, 'train': 1, 'val': 1,
         'classification_train': len(CLASSES), 'classification_val': len(CLASSES)}


def write_shapes(root: str | Path, *, train: int = 800, val: int = 150, size: int = 128,
                 classification_train: int = 1200, classification_val: int = 300, seed: int = 0,
                 contrast: float = 1.0) -> Path:
    """Draw the dataset into `root` and return `root`. If the same set exists there, nothing is drawn.

    Creation is atomic: the set is drawn into a sibling folder, which is then renamed. An older bundled set in `root`
    is replaced file by file, and other files are kept. Raises InputError if `root` contains anything else.
    contrast: in (0, 1], of all images, see `draw_scene`.
    """
    root = Path(root)
    parameters: Parameters = {'version': VERSION, 'seed': seed, 'size': size, 'train': train, 'val': val,
                  'classification_train': classification_train, 'classification_val': classification_val,
                  'contrast': contrast}
    _check(parameters)
    old = _read_stamp(root)
    if old == parameters:
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{root.name}.', dir=root.parent) as aside:
        drawn = Path(aside) / 'shapes'
        for split in ('train', 'val'):
            _write_detection(drawn, split, parameters)
            _write_classification(drawn, split, parameters)
        (drawn / STAMP).write_text(json.dumps(parameters, indent=1) + '\n')
        if old is None:
            _move_new_set(drawn, root, parameters)
        else:
            _replace_old_set(drawn, root, old, parameters)
    return root


def _check(parameters: Parameters) -> None:
    for name, least in LEAST.items():
        if parameters[name] < least:
            raise InputError(f'{name} is at least {least}, got {parameters[name]}; raise it')
    check_contrast(parameters['contrast'])


def _read_stamp(root: Path) -> Parameters | None:
    """Return the parameters of the set in `root`, None if `root` is missing or empty."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    try:
        stamp = json.loads((root / STAMP).read_text())
    except (OSError, json.JSONDecodeError):
        stamp = {}
    if not set(LEAST) <= set(stamp):
        raise InputError(f'expected no folder, an empty one or one with our {STAMP} at {root}, got something that was '
                         f'not drawn here; choose another root or move it away')
    return {'contrast': 1.0} | stamp  # sets drawn before the option existed have none


def _list_files(parameters: Parameters) -> Iterator[str]:
    """Yield all files of a set except its stamp, relative to the root."""
    for split in ('train', 'val'):
        yield f'annotations/instances_{split}.json'
        yield from (_get_scene_path(split, index) for index in range(parameters[split]))
        yield from (_get_object_path(split, index) for index in range(parameters[f'classification_{split}']))


def _get_scene_path(split: str, index: int) -> str:
    return f'{split}/{index:06d}.png'


def _get_object_path(split: str, index: int) -> str:
    return f'classification/{split}/{CLASSES[index % len(CLASSES)]}/{index:06d}.png'


def _move_new_set(drawn: Path, root: Path, parameters: Parameters) -> None:
    try:
        drawn.replace(root)
    except OSError:  # another process, such as a rank of the same run, may have created the same set first
        if _read_stamp(root) != parameters:
            raise


def _replace_old_set(drawn: Path, root: Path, old: Parameters, new: Parameters) -> None:
    """Remove the old set's files and move the new ones in.

    Until the last step the stamp has version 0 and the larger number of images of both sets. If the run is killed in
    between, the next one recognizes the folder as a bundled set and redraws it.
    """
    either = new | {name: max(old[name], new[name]) for name in LEAST} | {'version': 0}
    (root / STAMP).write_text(json.dumps(either, indent=1) + '\n')
    for name in _list_files(either):
        (root / name).unlink(missing_ok=True)
    for name in [*_list_files(new), STAMP]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (drawn / name).replace(root / name)


def _write_detection(root: Path, split: str, parameters: Parameters) -> None:
    images: list[dict] = []
    annotations: list[dict] = []
    for index in range(parameters[split]):
        scene = draw_scene(parameters['seed'], split, index, size=parameters['size'], contrast=parameters['contrast'])
        _save_image(scene.image, root / _get_scene_path(split, index))
        height, width = scene.image.shape[:2]
        images.append({'id': index, 'file_name': f'{index:06d}.png', 'height': height, 'width': width})
        for entry in _make_annotations(scene):
            annotations.append({'id': len(annotations) + 1, 'image_id': index, **entry})
    # omit the default contrast: records are kept under a digest of this file, which predates the option
    drawn = {name: value for name, value in parameters.items() if (name, value) != ('contrast', 1)}
    content = {
        'info': {'description': f'pit_downstream shapes, {split}', 'parameters': drawn},
        'categories': [{'id': place, 'name': name} for place, name in enumerate(CLASSES, start=1)],
        'images': images, 'annotations': annotations}
    (root / 'annotations').mkdir(exist_ok=True)
    (root / f'annotations/instances_{split}.json').write_text(json.dumps(content))


def _make_annotations(scene: Scene) -> Iterator[dict]:
    """Yield the COCO entries of a scene: visible mask, its tight box and its area."""
    codes = rle.encode(np.asfortranarray(scene.masks.transpose(1, 2, 0).astype(np.uint8)))
    for mask, label, code in zip(scene.masks, scene.labels, codes):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
        yield {'category_id': int(label) + 1, 'bbox': [float(side) for side in box], 'area': float(mask.sum()),
               'iscrowd': 0, 'segmentation': {'size': code['size'], 'counts': code['counts'].decode()}}


def _write_classification(root: Path, split: str, parameters: Parameters) -> None:
    for index in range(parameters[f'classification_{split}']):
        image, _ = draw_object(parameters['seed'], split, index, size=OBJECT_SIZE, contrast=parameters['contrast'])
        _save_image(image, root / _get_object_path(split, index))


def _save_image(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, compress_level=3)


def main() -> None:
    parser = argparse.ArgumentParser(description='Draw the bundled dataset.')
    parser.add_argument('root', nargs='?', default=ROOT, help='folder to write, by default %(default)s')
    parser.add_argument('--contrast', type=float, default=1.0, help='in (0, 1]; 0.3 leaves three tenths of every '
                        "value's distance to mid-gray (default: %(default)s)")
    args = parser.parse_args()
    start = time.perf_counter()
    try:
        root = write_shapes(args.root, contrast=args.contrast)
    except ValueError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    count = json.loads((root / STAMP).read_text())
    print(f"{root}: {count['train']} train and {count['val']} val scenes, {count['classification_train']} and "
          f"{count['classification_val']} object images, {time.perf_counter() - start:.1f} s")


if __name__ == '__main__':
    main()
