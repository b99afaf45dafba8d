"""Early checks for missing detection data, and handling of broken images."""

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import HOOKS, TRANSFORMS
from mmengine.config import Config
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import Registry
from mmengine.structures import BaseDataElement
from PIL import Image, ImageFile, ImageOps

from pit_downstream.datasets.base import DECODE_ERRORS, describe_error
from pit_downstream.datasets.folders import make_printable, format_names
from pit_downstream.evaluation.distributed import all_gather
from pit_downstream.utils.errors import InputError

UPRIGHT = ('color', 'grayscale')  # color types for which mmcv applies the EXIF orientation
CHECKED = ('cv2', 'pillow', 'turbojpeg')  # decoders of formats that PIL also reads
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
GRAY_SIDE = 64  # pixels, side of a gray image of unknown size
MOST_SKIPPED = 1000  # consecutive images: max_refetch of mmengine's BaseDataset, which then raises an Exception


class ImageSizeError(InputError):
    """Mismatch between the size of an image and that in its annotation."""


@TRANSFORMS.register_module()
class LoadImageOrSkip(LoadImageFromFile):
    """Image loader of mmcv that reports a broken file instead of training on half of it.

    A file is broken if it is missing, unreadable, truncated, damaged, or larger than 179 megapixels (Pillow's limit).
    on_broken: 'skip' returns None, so that mmengine's dataset draws another training image, and raises InputError after
    1000 broken images in succession. 'keep' returns the part that decodes with gray elsewhere, or a gray image if
    nothing decodes, and stores the reason as 'fault' in the result. 'raise' raises InputError.
    """

    def __init__(self, *args, on_broken: str = 'skip', **kwargs):
        super().__init__(*args, **kwargs)
        self.on_broken = on_broken
        self._warned: set[str] = set()
        self._skipped = 0

    def transform(self, results: dict) -> dict | None:
        content, fault = self._read(results['img_path'])
        image = None
        if fault is None:
            image, fault = self._decode(content)
        if fault is not None:
            if self.on_broken == 'raise':
                raise InputError(fault)
            self._warn(results['img_path'], fault)
            if self.on_broken == 'skip':
                self._skipped += 1
                if self._skipped == MOST_SKIPPED:
                    raise InputError(f'No readable image among {MOST_SKIPPED} that were drawn for training: '
                                     f'{make_printable(results["img_path"])} ({fault}) is the last of '
                                     f'{len(self._warned)} '
                                     'broken files. Replace them, or check data_prefix and data_root.')
                return None
            image = _decode_part(content, upright=self.color_type in UPRIGHT)
            if image is None:
                size = results.get('height') or GRAY_SIDE, results.get('width') or GRAY_SIDE
                image = np.full((*size, 3), 128, np.uint8)
            results['fault'] = fault
        assert image is not None  # _decode returns an image or a fault
        self._skipped = 0
        require_size(results, image.shape)
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _read(self, path: str) -> tuple[bytes, str | None]:
        try:
            return get(path, backend_args=self.backend_args), None
        except (OSError, ValueError) as error:  # ValueError: a null byte in the name
            return b'', getattr(error, 'strerror', None) or str(error)

    def _decode(self, content: bytes) -> tuple[np.ndarray | None, str | None]:
        """Return (image, None), or (None, reason) for a broken file."""
        fault = find_image_fault(content) if self.imdecode_backend in CHECKED else None
        if fault is not None:
            return None, fault
        try:
            image = mmcv.imfrombytes(content, flag=self.color_type, backend=self.imdecode_backend)
        except (*DECODE_ERRORS, cv2.error) as error:
            return None, describe_error(error)
        return image, (find_image_fault(content, whole=True) or 'it does not decode') if image is None else None

    def _warn(self, path: str, fault: str) -> None:
        if path not in self._warned:
            self._warned.add(path)
            print_log(f'{make_printable(path)} is broken ({fault}): {_CONSEQUENCE[self.on_broken]}', logger='current',
                      level=logging.WARNING)


_CONSEQUENCE = {'skip': 'another image is trained on in its place',
                'keep': 'what decodes of it is evaluated, gray elsewhere'}


def find_image_fault(content: bytes, *, whole: bool = False) -> str | None:
    """Return the reason why an image file cannot be fully decoded, or None.

    For a JPEG or PNG file with an intact end only the header is read, which takes 20 microseconds. whole: decode it.
    """
    intact_end = (content.startswith(b'\xff\xd8') and content.rstrip(b'\0').endswith(b'\xff\xd9')
                  or content.startswith(b'\x89PNG') and content.endswith(b'IEND\xaeB`\x82'))
    try:
        image = Image.open(io.BytesIO(content))
        if whole or not intact_end:
            image.load()
    except DECODE_ERRORS as error:
        return describe_error(error)
    return None


def require_size(info: Mapping, shape: tuple[int, ...]) -> None:
    """Raise ImageSizeError unless an image of `shape` (H, W, ...) has the height and width of its annotation, `info`.

    Annotations without sizes pass.
    """
    height, width = shape[:2]
    annotated = info.get('width') or width, info.get('height') or height
    if annotated == (width, height):
        return
    fix = 'Correct width, height and boxes in the annotation file.'
    if annotated == (height, width):
        fix = ('An EXIF orientation is applied when a file is loaded: annotate the upright image, remove the tag from '
               "the file, or set color_type='color_ignore_orientation' in LoadImageFromFile.")
    raise ImageSizeError(f'Size of an image differs from its annotation: {make_printable(str(info.get("img_path")))} '
                         'is '
                         f'{width} x {height} pixels, annotated are {annotated[0]} x {annotated[1]}. {fix}')


def _decode_part(content: bytes, *, upright: bool) -> np.ndarray | None:
    """Return the part of an image that decodes, with gray elsewhere, or None if nothing decodes.

    The result is uint8 (H, W, 3) in mmcv's BGR order.
    """
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        image: Image.Image = Image.open(io.BytesIO(content))
        image = ImageOps.exif_transpose(image) if upright else image
        return np.asarray(image.convert('RGB'))[..., ::-1].copy()
    except DECODE_ERRORS:
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


@HOOKS.register_module()
class BrokenImageHook(Hook):
    """Hook that logs the number and paths of broken images after validation and test."""

    def __init__(self) -> None:
        self._faults: dict[str, str] = {}

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs: Sequence[BaseDataElement] | None = None):
        self._faults |= {sample.img_path: sample.fault for sample in outputs or () if sample.get('fault')}

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        faults = dict(all_gather(list(self._faults.items())))
        self._faults = {}
        if faults:
            names = format_names([f'{path} ({fault})' for path, fault in sorted(faults.items())], most=8)
            print_log(f'{len(faults)} broken images were evaluated, gray where they do not decode: {names}',
                      logger='current', level=logging.WARNING)

    after_test_iter, after_test_epoch = after_val_iter, after_val_epoch


def report_broken_images(cfg: Config) -> None:
    """Make validation and test of `cfg` count broken images (BrokenImageHook), in place.

    Pipelines that do not end with PackDetInputs log each broken image, but no count.
    """
    for step in iterate_dicts([cfg.get(loader) for loader in LOADERS if not loader.startswith('train')]):
        if resolve_class(step, TRANSFORMS) is PackDetInputs:
            keys = step.get('meta_keys', signature(PackDetInputs).parameters['meta_keys'].default)
            step['meta_keys'] = (*keys, 'fault')
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='BrokenImageHook')]


def replace_image_loaders(cfg: Config) -> None:
    """Replace mmcv's image loader with `LoadImageOrSkip` in every pipeline of `cfg`, in place."""
    for loader in LOADERS:
        for step in iterate_dicts(cfg.get(loader)):
            if resolve_class(step, TRANSFORMS) is LoadImageFromFile:
                step['type'] = 'LoadImageOrSkip'
                step['on_broken'] = 'skip' if loader == 'train_dataloader' else 'keep'


def set_data_root(cfg: Config, root: str) -> None:
    """Set every `data_root` of the datasets of `cfg`, and of the evaluators' files below it, to `root`, in place."""
    old = {part['data_root'] for loader in LOADERS for part in iterate_dicts(cfg.get(loader)) if part.get('data_root')}
    for part in iterate_dicts([cfg.get(loader) for loader in LOADERS]):
        if part.get('data_root'):
            part['data_root'] = root
    for part in iterate_dicts([cfg.get('val_evaluator'), cfg.get('test_evaluator')]):
        for before in old:
            if str(part.get('ann_file', '')).startswith(before):
                part['ann_file'] = str(Path(root, part['ann_file'][len(before):].lstrip('/')))
                break


def require_data(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Raise InputError, with instructions, if annotation files or image folders of `loaders` are missing.

    The files of their evaluators are included. Loaders that the config does not have and remote data are not checked.
    """
    named = [name for loader in loaders for name in (loader, loader.replace('dataloader', 'evaluator'))]
    datasets = [part for part in iterate_dicts([cfg.get(name) for name in named]) if part.get('ann_file')]
    missing = sorted({str(path) for dataset in datasets for path in _list_paths(dataset) if not path.exists()})
    if missing:
        root = datasets[0].get('data_root') or '.'
        raise InputError(
            f'expected the dataset under {root}, did not find {", ".join(missing)}; put it there as data/README.md '
            'describes, name another folder with --data DIR, or run with --bundled, which needs no dataset')


def iterate_dicts(node) -> Iterator[dict]:
    """Yield every dict inside nested dicts and lists, outer ones first."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        yield from iterate_dicts(child)


def resolve_class(part: Mapping, registry: Registry) -> Any:
    """Return the class that the `type` of a config part refers to, by name in the registry or directly."""
    kind = part.get('type')
    return registry.get(kind) if isinstance(kind, str) else kind


def _list_paths(dataset: dict) -> Iterator[Path]:
    root = dataset.get('data_root') or ''
    for name in (dataset['ann_file'], *dataset.get('data_prefix', {}).values()):
        if isinstance(name, str) and '://' not in root + name:
            yield Path(root, name)
