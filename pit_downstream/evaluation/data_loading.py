"""Load raw image batches with workers, in one stream over many passes without a gap between passes."""

import logging
import math
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pit_downstream.datasets.base import Samples, UnreadableImage
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Batch, Predictor, Sample
from pit_downstream.utils.rng import BatchRng

_log = logging.getLogger(__name__)

AHEAD = 2  # prefetched batches per worker
_NOTHING = torch.empty(0, 3, 1, 1, dtype=torch.uint8)


@dataclass(frozen=True)
class RawBatch:
    """A batch of uint8 images (B, 3, H, W) of one size with ids and targets, or unreadable samples of a batch."""

    images: Tensor
    ids: tuple[str, ...] = ()
    targets: tuple = ()
    unreadable: tuple[UnreadableImage, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def pin_memory(self) -> 'RawBatch':
        """Pin the images for an asynchronous copy to a GPU. Called by DataLoader."""
        return replace(self, images=self.images.pin_memory())

    def to(self, device: torch.device) -> 'RawBatch':
        return replace(self, images=self.images.to(device, non_blocking=True))

    def part(self, which: slice) -> 'RawBatch':
        return replace(self, images=self.images[which], ids=self.ids[which], targets=self.targets[which])

    def samples(self, images: Tensor) -> tuple[Sample, ...]:
        """Return the samples with `images` (B, 3, H, W) in place of the raw images."""
        return tuple(map(Sample, self.ids, images.unbind(), self.targets))


def passes(sources: Sequence[Samples], *, indices: Sequence[Sequence[int]], batch_size: int, workers: int,
           pin: bool = False) -> Iterator[Iterator[RawBatch]]:
    """Yield for each source an iterator over the batches of its `indices`, in order.

    A batch with images of several sizes is split into one batch per size. Each pass must be exhausted before the next
    begins. Workers keep running between passes.
    """
    plan = [[(place, index) for index in chosen[start:start + batch_size]]
            for place, chosen in enumerate(indices) for start in range(0, len(chosen), batch_size)]
    stream = _unpacked(DataLoader(
        _Sources(sources), batch_sampler=plan, num_workers=workers, collate_fn=_pack if workers else _collate,
        pin_memory=pin, prefetch_factor=AHEAD if workers else None))
    for chosen in indices:
        yield chain.from_iterable(islice(stream, -(-len(chosen) // batch_size)))


def _unpacked(loader: DataLoader) -> Iterator[tuple[RawBatch, ...]]:
    """Yield the batches. If a worker was killed, raise InputError with the flags to change.

    torch reports an exception in a worker as 'in DataLoader worker process', a killed worker as 'DataLoader worker (pid
    ...)'.
    """
    try:
        for batches in loader:
            yield batches.unpack() if isinstance(batches, _Packed) else batches
    except RuntimeError as error:
        if 'DataLoader worker (pid' not in str(error):
            raise
        raise InputError('A worker process was killed, usually because memory is too small (/dev/shm in a container). '
                         'Run with fewer --workers or a smaller --batch-size.') from error


class _Sources(Dataset):
    """Dataset that maps (source index, sample index) to the sample, or to the reason why it is unreadable."""

    def __init__(self, sources: Sequence[Samples]):
        self._sources = sources

    def __getitem__(self, place: tuple[int, int]) -> Sample | UnreadableImage:
        source, index = place
        try:
            return self._sources[source][index]
        except UnreadableImage as error:
            return error.with_traceback(None)


def _collate(items: list[Sample | UnreadableImage]) -> tuple[RawBatch, ...]:
    """Return one batch per image size, in order of first occurrence, preceded by a batch of unreadable samples."""
    unreadable = tuple(item for item in items if isinstance(item, UnreadableImage))
    sizes: dict[torch.Size, list[Sample]] = {}
    for item in items:
        if isinstance(item, Sample):
            sizes.setdefault(item.image.shape, []).append(item)
    batches = tuple(map(_stacked, sizes.values()))
    return (RawBatch(_NOTHING, unreadable=unreadable), *batches) if unreadable else batches


@dataclass(frozen=True)
class _Packed:
    """Batches as a worker sends them: all images in one tensor, the rest as bytes.

    Each tensor sent between processes costs a file descriptor on both sides, so all sizes share one tensor.
    """

    pixels: Tensor  # uint8, flat
    rest: bytes

    def pin_memory(self) -> '_Packed':
        return replace(self, pixels=self.pixels.pin_memory())

    def unpack(self) -> tuple[RawBatch, ...]:
        shapes, batches = pickle.loads(self.rest)
        images = self.pixels.split([math.prod(shape) for shape in shapes])
        return tuple(replace(batch, images=flat.view(shape))
                     for batch, flat, shape in zip(batches, images, shapes, strict=True))


def _pack(items: list[Sample | UnreadableImage]) -> _Packed:
    """Collate and pack in a worker. pickle copies the tensors in targets, which multiprocessing would share."""
    batches = _collate(items)
    shapes = [batch.images.shape for batch in batches]
    rest = pickle.dumps((shapes, [replace(batch, images=_NOTHING) for batch in batches]))
    return _Packed(torch.cat([batch.images.flatten() for batch in batches]), rest)


def _stacked(samples: list[Sample]) -> RawBatch:
    images = torch.stack([sample.image for sample in samples])
    return RawBatch(images, tuple(sample.id for sample in samples), tuple(sample.target for sample in samples))


def draw_batches(predictor: Predictor, samples: Sequence[Sample], *, count: int, size: int, seed: int = 0,
                 allow_missing: int = 0) -> Iterator[Batch]:
    """Yield `count` batches of `size` samples drawn at random, for the training of a patch.

    Up to `allow_missing` unreadable images are replaced by the next readable ones; one more raises InputError.
    """
    if count < 1 or not isinstance(size, int):
        raise InputError(f'expected 1 step or more and a number as batch size, got {count} and {size}')
    unreadable: dict[int, UnreadableImage] = {}

    def read_sample(start: int) -> Sample:
        for index in (*range(start, len(samples)), *range(start)):
            try:
                if index not in unreadable:
                    return samples[index]
            except UnreadableImage as error:
                unreadable[index] = error
                if len(unreadable) > allow_missing:
                    break
                _log.warning('left out: %s', error)
        raise InputError(f'Unreadable images: {len(unreadable)} of {len(samples)}, among them '
                         f'{next(reversed(unreadable.values()))}. Replace them, or give --allow-missing N.')
    for step in range(count):
        chosen = BatchRng(seed, [('dpatch', step)]).integers(0, len(samples), (1, size))[0].tolist()
        yield predictor.collate([read_sample(index) for index in chosen])
