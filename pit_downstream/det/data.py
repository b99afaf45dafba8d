"""What detection data need beyond mmdet: finding out early that they are absent, and surviving a broken image."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.fileio import get
from mmengine.logging import print_log
from PIL import Image, ImageFile, ImageOps

CHECKED = ('cv2', 'pillow', 'turbojpeg')  # decoders of the formats that PIL reads, too
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


@TRANSFORMS.register_module()
class LoadImageOrSkip(LoadImageFromFile):
    """Load an image as mmcv does, but name a broken file instead of training on half of it.

    on_broken: 'skip' returns None, for which mmengine's data set draws another training image; 'keep' uses the part
    that decodes (an evaluation may not leave an image out) and raises ValueError when nothing does.
    """

    def __init__(self, *args, on_broken: str = 'skip', **kwargs):
        super().__init__(*args, **kwargs)
        self.on_broken = on_broken
        self._told: set[str] = set()

    def transform(self, results: dict) -> dict | None:
        path = results['img_path']
        content = get(path, backend_args=self.backend_args)
        fault = image_fault(content) if self.imdecode_backend in CHECKED else None
        if fault is None:
            image = mmcv.imfrombytes(content, flag=self.color_type, backend=self.imdecode_backend)
        else:
            self._tell(path, fault)
            if self.on_broken == 'skip':
                return None
            image = _decodable_part(content)
        if image is None:
            raise ValueError(f'expected an image at {path}, got one that does not decode ({fault}); replace it or '
                             'take it out of the annotation file')
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _tell(self, path: str, fault: str) -> None:
        if path not in self._told:
            self._told.add(path)
            print_log(f'{path} is broken ({fault}): {_VERDICT[self.on_broken]}', logger='current',
                      level=logging.WARNING)


_VERDICT = {'skip': 'another image is trained on in its place', 'keep': 'what decodes of it is evaluated'}


def image_fault(content: bytes) -> str | None:
    """Why an image file cannot be decoded whole, or None. Cheap for intact JPEG and PNG: only their ends are read."""
    whole = (content.startswith(b'\xff\xd8') and content.rstrip(b'\0').endswith(b'\xff\xd9')
             or content.startswith(b'\x89PNG') and content.endswith(b'IEND\xaeB`\x82'))
    if whole:
        return None
    try:
        Image.open(io.BytesIO(content)).load()
    except (OSError, SyntaxError, ValueError) as error:
        return str(error) or type(error).__name__
    return None


def _decodable_part(content: bytes) -> np.ndarray | None:
    """uint8 (H, W, 3) in mmcv's BGR order, grey where the file ends too early; None when there is no image in it."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))  # as OpenCV turns whole ones
        return np.asarray(upright.convert('RGB'))[..., ::-1].copy()
    except (OSError, SyntaxError, ValueError):
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def survive_broken_images(cfg: Config) -> None:
    """Exchange mmcv's image loader for `LoadImageOrSkip` in every pipeline of `cfg`, in place."""
    for loader in LOADERS:
        for step in dicts_in(cfg.get(loader)):
            if step.get('type') == 'LoadImageFromFile':
                step['type'] = 'LoadImageOrSkip'
                step['on_broken'] = 'skip' if loader == 'train_dataloader' else 'keep'


def set_data_root(cfg: Config, root: str) -> None:
    """Point every data set of `cfg` that has a `data_root`, and the evaluators' files below it, to `root`, in place."""
    old = {part['data_root'] for loader in LOADERS for part in dicts_in(cfg.get(loader)) if part.get('data_root')}
    for part in dicts_in([cfg.get(loader) for loader in LOADERS]):
        if part.get('data_root'):
            part['data_root'] = root
    for part in dicts_in([cfg.get('val_evaluator'), cfg.get('test_evaluator')]):
        for before in old:
            if str(part.get('ann_file', '')).startswith(before):
                part['ann_file'] = str(Path(root, part['ann_file'][len(before):].lstrip('/')))
                break


def require_data(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Raise FileNotFoundError, with what to do, unless the annotation files and image folders of `loaders`, and of
    the evaluators that belong to them, exist.

    A loader that the config does not have, and data on a remote file system, are not looked for.
    """
    named = [name for loader in loaders for name in (loader, loader.replace('dataloader', 'evaluator'))]
    datasets = [part for part in dicts_in([cfg.get(name) for name in named]) if part.get('ann_file')]
    missing = sorted({str(path) for dataset in datasets for path in _paths(dataset) if not path.exists()})
    if missing:
        root = datasets[0].get('data_root') or '.'
        raise FileNotFoundError(
            f'expected the data set under {root}, did not find {", ".join(missing)}; put it there as data/README.md '
            'says, name another folder with --data DIR, or run with --bundled, which needs no data set')


def dicts_in(node) -> Iterator[dict]:
    """Every dict inside nested dicts and lists, the outer ones first."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        yield from dicts_in(child)


def _paths(dataset: dict) -> Iterator[Path]:
    root = dataset.get('data_root') or ''
    for name in (dataset['ann_file'], *dataset.get('data_prefix', {}).values()):
        if isinstance(name, str) and '://' not in root + name:
            yield Path(root, name)
