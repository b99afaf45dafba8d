"""Decoded images in a memory map, so that many passes over a data set decode it once."""

import hashlib
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import torch

from ..core.condition import Condition
from ..core.contracts import Sample
from .base import PictureSamples, Samples


class CachedSamples:
    """The same samples; an image read once is taken from `folder` from then on, also by other processes and runs.

    Takes 3 * size^2 bytes an image on disk (7.5 GB for 50,000 at 224), and 4 for its checksum: an image that does not
    match is decoded again. The files belong to these pictures and this
    view: change a picture, and a new map is begun.
    """

    def __init__(self, samples: PictureSamples, folder: str | Path):
        if samples.view.size is None:
            raise ValueError('expected images of one size to cache, got the native ones; leave out --cache')
        self._samples, self.name = samples, samples.name
        self.ids, self.targets = samples.ids, samples.targets
        self._shape = (len(samples), 3, samples.view.size, samples.view.size)
        self._path = Path(folder) / f'{_digest(samples)}.images'
        self._images = self._sums = None
        _allot(self._path, int(np.prod(self._shape)))
        _allot(self._path.with_suffix('.crc32'), 4 * len(samples))

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        if self._images is None:
            self._images = np.memmap(self._path, np.uint8, 'r+', shape=self._shape)
            self._sums = np.memmap(self._path.with_suffix('.crc32'), np.uint32, 'r+')
        if self._sums[index]:
            image = np.array(self._images[index])
            if _sum(image) == self._sums[index]:  # after a power loss the disk may hold the one without the other
                return Sample(self._samples.ids[index], torch.from_numpy(image), self._samples.targets[index])
        sample = self._samples[index]
        self._images[index] = sample.image.numpy()
        self._sums[index] = _sum(sample.image.numpy())
        return sample

    def __getstate__(self) -> dict:
        return self.__dict__ | {'_images': None, '_sums': None}  # a map is opened anew in each process

    def at(self, condition: Condition) -> tuple[Samples, Condition]:
        return self, condition


def _allot(path: Path, size: int) -> None:
    """A file of `size` bytes, whose present content is kept."""
    lacking = size - (path.stat().st_blocks * 512 if path.exists() else 0)  # of a sparse file only what is there
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if lacking > free:  # a full disk under a memory map ends the process without a word
        raise ValueError(f'expected {lacking / 1e9:.1f} GB of free disk for the cache in {path.parent}, got '
                         f'{free / 1e9:.1f}; name another folder with --cache')
    with path.open('ab'):
        os.truncate(path, size)


def _sum(image: np.ndarray) -> int:
    """A checksum; 0 stands for no image."""
    return zlib.crc32(image) or 1


def _digest(samples: PictureSamples) -> str:
    """Of the view and of every picture's path, size and time."""
    text = hashlib.sha256(f'{samples.name} {samples.root.resolve()}'.encode())
    for id in samples.ids:
        stat = (samples.root / id).stat()
        text.update(f'\n{id} {stat.st_size} {stat.st_mtime_ns}'.encode())
    return text.hexdigest()[:16]
