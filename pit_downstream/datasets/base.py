"""Samples on disk: images with their class, cropped to the raw image to which a benchmark applies corruptions."""

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Sample
from pit_downstream.utils.digests import hash_files, hash_text
from pit_downstream.utils.spec import Spec
from pit_downstream.datasets.folders import SUFFIXES, make_printable

# Exceptions of Pillow's decoders for damaged files: SyntaxError for PNG, struct.error for headers, RuntimeError for
# AVIF, LookupError, TypeError etc. for TIFF and Exif tags, DecompressionBombError above 179 million pixels
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, RuntimeError, LookupError,
                 TypeError,
           AttributeError, OverflowError, MemoryError, Image.DecompressionBombError)
_TURNS = {  # by EXIF orientation: Exif 2.3, section 4.6.4 A, as in PIL.ImageOps.exif_transpose
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90}


class UnreadableImage(InputError):
    """Error for an image that cannot be decoded. id: of the sample. reason: message of the decoder."""

    def __init__(self, id: str, reason: str):
        super().__init__(f'{make_printable(id)} could not be read: {make_printable(reason)}')
        self.id, self.reason = id, reason

    def __reduce__(self):
        return UnreadableImage, (self.id, self.reason)


class Samples(Protocol):
    """Dataset interface of the evaluation loop. name: the Spec text under which records are kept."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Return a sample. Raises UnreadableImage."""

    def at(self, condition: Condition) -> 'tuple[Samples, Condition]':
        """Return the samples of `condition` and the condition that remains to be applied to them."""


class LabeledSamples(Samples, Protocol):
    """Samples whose ids and targets are known without reading an image."""

    ids: list[str]
    targets: list[int | tuple[int, ...]]


@dataclass(frozen=True)
class Preprocess:
    """Raw-image transform: resize the shorter side to `resize`, then crop the central `size` x `size` pixels.

    mode: 'squash' resizes both sides to `resize`. resize: None for no resizing, smaller images are then an error.
    size: None for no crop. border: pixels cut from each side first.
    """

    size: int | None = 224
    resize: int | None = 256
    interpolation: str = 'bilinear'
    mode: str = 'center'
    border: int = 0

    def __post_init__(self):
        modes = [mode.value for mode in InterpolationMode]
        if self.interpolation not in modes or self.mode not in ('center', 'squash'):
            raise InputError(f"expected an interpolation of {', '.join(modes)} and the mode 'center' or 'squash', got "
                             f'{self.interpolation!r} and {self.mode!r}; --preprocess imagenet fits models of 224 px')

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the raw image, uint8 (3, H, W), RGB."""
        image = _convert_to_rgb(image)
        if self.border:
            width, height = image.size
            image = image.crop((self.border, self.border, width - self.border, height - self.border))
        if self.resize is not None:
            side = self.resize if self.mode == 'center' else [self.resize, self.resize]
            image = resize(image, side, InterpolationMode(self.interpolation))
        if self.size is not None:
            if min(image.size) < self.size:
                raise InputError(f'expected {self.size} x {self.size} pixels at least, got '
                                 f'{image.width} x {image.height}')
            image = center_crop(image, self.size)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def __str__(self) -> str:
        cut = [f'{self.border} pixels cut from each side'] if self.border else []
        if self.resize is not None and self.mode == 'center':
            cut.append(f'shorter side resized to {self.resize} ({self.interpolation})')
        elif self.resize is not None:
            cut.append(f'resized to {self.resize} x {self.resize} ({self.interpolation})')
        if self.size is not None:
            cut.append(f'center crop of {self.size} x {self.size}')
        return ', '.join(cut) or 'images as they are'

    @property
    def words(self) -> dict[str, int | str]:
        """Return the entries of this view in the name of a dataset."""
        words: dict[str, int | str] = {'border': self.border} if self.border else {}
        if self.size is None:
            return {**words, 'view': 'native'}
        words['size'] = self.size
        if self.resize is not None:
            words |= {'resize': self.resize, 'interpolation': self.interpolation}
        return words if self.resize is None or self.mode == 'center' else {**words, 'mode': self.mode}


def load_image(path: str | Path, id: str | None = None) -> Image.Image:
    """Load an image file in RGB, the first frame of an animation.

    id: Name of the image in errors (default: `path`).

    Raises:
        UnreadableImage: The file is missing, damaged, or has more than 179 million pixels.
    """
    try:
        with open(path, 'rb') as file:
            image = Image.open(file)
            if image.format == 'PNG':
                image.verify()  # decoding misses damage before intact last rows; every chunk has a checksum
                file.seek(0)
                image = Image.open(file)
            return _convert_to_rgb(image)
    except DECODE_ERRORS as error:
        raise UnreadableImage(str(path) if id is None else id, describe_error(error)) from error


def describe_error(error: Exception) -> str:
    """Return the reason of a decoder's error, without the address of the file object in Pillow's message."""
    return str(error).partition(' <_io.')[0].strip() or type(error).__name__


def apply_exif_orientation(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation, as OpenCV does when mmdet loads images. Malformed EXIF data are ignored.

    Pillow applies the orientation of TIFF files only, and so do the image folders of torchvision and timm.
    """
    image.load()  # in a PNG, EXIF data may follow the pixels
    exif = Image.Exif()
    try:
        exif.load(image.info.get('exif', b''))
        turn = _TURNS.get(exif.get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, ValueError, TypeError, LookupError, OSError, struct.error):
        return image
    if turn is None:
        return image
    turned = image.transpose(turn)
    del turned.info['exif']  # already applied
    return turned


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB. 16-bit gray keeps its upper 8 bits, as in Pillow's 16-bit color. convert() would clip at 255."""
    image = apply_exif_orientation(image)
    return convert_depth(image).convert('RGB')


def convert_depth(image: Image.Image) -> Image.Image:
    """Convert 16-bit gray to 8 bits. Raises InputError for 32 bits, whose white level is unknown."""
    if image.format == 'PPM' and image.mode == 'I':  # Pillow scales its gray levels to 16 bits
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode.startswith('I;16'):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ('I', 'F'):
        raise InputError(f'expected 8 or 16 bits a pixel and channel, got 32 (mode {image.mode}), whose white '
                         'level is unknown. Convert the image')
    return image


class ImageFolderSamples:
    """Images below `root`, each with a target: a class index, or a tuple of all correct indices.

    name: of the Spec. The view, the number of images and a digest of their files are added, so results of different
    views, subsets or images are never mixed. ids: paths relative to `root`, with '/'.
    """

    def __init__(self, root: str | Path, ids: Sequence[str], targets: Sequence[int | tuple[int, ...]], *,
                 view: Preprocess, name: str):
        if not ids:
            raise InputError(f'expected images ({", ".join(SUFFIXES)}) under {root}, found none; check --data')
        self.root, self.ids, self.targets, self.view = Path(root), list(ids), list(targets), view
        given = Spec.parse(name)
        self.spec = Spec.of(given.name, **{**dict(given.kwargs), 'images': len(ids), **view.words})

    @cached_property
    def name(self) -> str:
        return str(Spec.of(self.spec.name, **{**dict(self.spec.kwargs), 'files': self.files}))

    @cached_property
    def files(self) -> str:
        """Return the digest of the images' relative paths, contents and targets.

        Unreadable files are marked as such, so the digest changes when they are fixed.
        """
        digests = hash_files([self.root / id for id in self.ids], unreadable='unreadable')
        return hash_text(*(f'{id} {digest} {target}'
                           for id, digest, target in zip(self.ids, digests, self.targets, strict=True)))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        id = self.ids[index]
        loaded = load_image(self.root / id, id)
        try:
            image = self.view(loaded)
        except ValueError as error:
            raise UnreadableImage(id, f'{error}') from error
        return Sample(id, image, self.targets[index])

    def at(self, condition: Condition) -> tuple['ImageFolderSamples', Condition]:
        return self, condition

    def take(self, limit: int) -> 'ImageFolderSamples':
        """Return a subset of `limit` images, evenly spaced over the dataset and thus over its classes."""
        if not 1 <= limit <= len(self):
            raise InputError(f'expected a limit in 1..{len(self)}, the number of images, got {limit}')
        chosen = [index * len(self) // limit for index in range(limit)]
        few = ImageFolderSamples(self.root, [self.ids[i] for i in chosen], [self.targets[i] for i in chosen],
                             view=self.view, name=str(self.spec))
        few.spec = Spec.of(self.spec.name, **{**dict(self.spec.kwargs), 'limit': limit})
        return few


class ImageNetCFolders:
    """Published set of corrupted images: one dataset per condition, and optionally the clean one.

    folders: dataset by condition, with equal numbers of images. clean: the same images without corruption.
    The name contains a digest of the image names, and the view and files of the clean images if they differ. It does
    not depend on the chosen conditions. The content of a condition's folder is not part of the name. It is in a
    separate record next to the condition's results (evaluation.keep), so only chosen folders are read.
    """

    def __init__(self, name: str, folders: dict[Condition, ImageFolderSamples], *,
                 clean: ImageFolderSamples | None = None):
        sizes = {str(condition): len(samples) for condition, samples in folders.items()}
        if len(set(sizes.values())) != 1:
            few = min(sizes, key=sizes.__getitem__)
            raise InputError(f'expected equally many images under every condition, got {sizes[few]} under {few} and '
                             f'{max(sizes.values())} elsewhere; complete the folder')
        any_folder = next(iter(folders.values()))
        self._folders = folders | ({CLEAN: clean} if clean is not None else {})
        words = dict(any_folder.spec.kwargs) | {'pictures': hash_text(*_check_same_images(self._folders.values()))}
        if clean is not None:
            other = clean.view.words | {'files': clean.files}
            words |= {f'clean_{key}': value for key, value in other.items() if words.get(key) != value}
        self._length = len(any_folder)
        given = Spec.parse(name)
        self.name = str(Spec.of(given.name, **{**words, **dict(given.kwargs)}))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        raise InputError(f'{self.name} has images only under a condition; call at(condition) to get them')

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return tuple(self._folders)

    def at(self, condition: Condition) -> tuple[ImageFolderSamples, Condition]:
        """Return the folder of `condition`. Only the attack remains to be applied."""
        here = Condition(condition.corruption)
        if here not in self._folders:
            raise InputError(f'{self.name} has no images under {here}; it has {len(self._folders)} other conditions')
        return self._folders[here], Condition(None, condition.attack)


def _check_same_images(folders: Iterable[ImageFolderSamples]) -> list[str]:
    """Return name and target of every image, sorted. Raises InputError if a folder differs from the first.

    Suffixes and parent folders of the images may differ.
    """
    first, *others = folders
    names = _list_stems(first)
    for other in others:
        unknown = set(names) ^ set(_list_stems(other))
        if unknown or len(other) != len(first):
            raise InputError(f'expected the same images in {other.root} as in {first.root}, got {len(other)} and '
                             f'{len(first)}, and {min(unknown, default="one")} not in both; give the clean images of '
                             'this set with --data, or complete the folder')
    return names


def _list_stems(samples: ImageFolderSamples) -> list[str]:
    stems = (id.rsplit('/', 1)[-1].rsplit('.', 1)[0] for id in samples.ids)
    return sorted(f'{stem} {target}' for stem, target in zip(stems, samples.targets, strict=True))
