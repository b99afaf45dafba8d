"""Cache of decoded images in a memory map: repeated passes over a dataset decode it once."""

import errno
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import torch

from pit_downstream.results.condition import Condition
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Sample
from pit_downstream.utils.digests import hash_text
from pit_downstream.datasets.base import ImageFolderSamples, Samples


class CachedSamples:
    """Samples with a cache of decoded images in `folder`, shared by processes and runs.

    The cache needs 3 * size^2 bytes per image (7.5 GB for 50,000 at 224), and 4 for a checksum. Images that do not
    match their checksum are decoded again. Files are named by the content of the images and the view, so a changed
    image starts a new cache. All disk space is allocated at once. Raises InputError if there is too little.
    """

    def __init__(self, samples: ImageFolderSamples, folder: str | Path):
        if samples.view.size is None:
            raise InputError('expected images of one size to cache, got the native ones; leave out --cache')
        self._samples, self.name = samples, samples.name
        self.ids, self.targets = samples.ids, samples.targets
        self._shape = (len(samples), 3, samples.view.size, samples.view.size)
        self._path = Path(folder) / f'{hash_text(samples.name)}.images'
        self._images: np.ndarray | None = None
        self._sums: np.ndarray | None = None
        _allocate(self._path, int(np.prod(self._shape)))
        _allocate(self._path.with_suffix('.crc32'), 4 * len(samples))

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        if self._images is None or self._sums is None:
            self._images = np.memmap(self._path, np.uint8, 'r+', shape=self._shape)
            self._sums = np.memmap(self._path.with_suffix('.crc32'), np.uint32, 'r+')
        if self._sums[index]:
            image = np.array(self._images[index])
            if _compute_checksum(image) == self._sums[index]:  # after a power loss the disk may have only one of them
                return Sample(self._samples.ids[index], torch.from_numpy(image), self._samples.targets[index])
        sample = self._samples[index]
        self._images[index] = sample.image.numpy()
        self._sums[index] = _compute_checksum(sample.image.numpy())
        return sample

    def __getstate__(self) -> dict:
        return self.__dict__ | {'_images': None, '_sums': None}  # each process opens its own map

    def at(self, condition: Condition) -> tuple[Samples, Condition]:
        return self, condition


def _allocate(path: Path, size: int) -> None:
    """Allocate all blocks of a file of `size` bytes. Existing content is kept.

    On a full disk, writing to an unallocated block of a memory map kills the process with SIGBUS.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    created = not path.exists()
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    failure = None
    try:
        _fill_blocks(file, size)
        os.ftruncate(file, size)
    except OSError as error:
        failure = error.strerror
    finally:
        os.close(file)
    if failure:
        if created:
            path.unlink(missing_ok=True)
        free = shutil.disk_usage(path.parent).free
        raise InputError(f'the cache in {path.parent} needs {size / 1e9:.3g} GB, {free / 1e9:.3g} GB are free '
                         f'({failure}). Free some space, or pass another folder with --cache DIR.')


def _fill_blocks(file: int, size: int) -> None:
    try:
        os.posix_fallocate(file, 0, size)
    except AttributeError:  # macOS
        _append_zeros(file, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # file systems without allocation, such as ZFS
            raise
        _append_zeros(file, size)


def _append_zeros(file: int, size: int) -> None:
    missing = size - os.lseek(file, 0, os.SEEK_END)
    while missing > 0:
        missing -= os.write(file, bytes(min(missing, 1 << 20)))


def _compute_checksum(image: np.ndarray) -> int:
    """Return a nonzero checksum. 0 marks a missing image."""
    return zlib.crc32(image.data) or 1
