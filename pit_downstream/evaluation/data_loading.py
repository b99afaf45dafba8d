"""Batches of raw images, decoded by workers, in one stream over many passes so that no pass waits for its first."""

import math
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pit_downstream.core.contracts import Sample
from pit_downstream.datasets.base import Samples, UnreadableImage

AHEAD = 2  # batches that each worker decodes in advance
_NOTHING = torch.empty(0, 3, 1, 1, dtype=torch.uint8)


@dataclass(frozen=True)
class RawBatch:
    """images: uint8 (B, 3, H, W) of one size with ids and targets; or samples of a batch that could not be read."""

    images: Tensor
    ids: tuple[str, ...] = ()
    targets: tuple = ()
    unreadable: tuple[UnreadableImage, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def pin_memory(self) -> 'RawBatch':
        """The DataLoader calls this, so that the copy to a GPU need not wait."""
        return replace(self, images=self.images.pin_memory())

    def to(self, device: torch.device) -> 'RawBatch':
        return replace(self, images=self.images.to(device, non_blocking=True))

    def part(self, which: slice) -> 'RawBatch':
        return replace(self, images=self.images[which], ids=self.ids[which], targets=self.targets[which])

    def samples(self, images: Tensor) -> tuple[Sample, ...]:
        """The samples with other images (B, 3, H, W) in place of the raw ones."""
        return tuple(map(Sample, self.ids, images.unbind(), self.targets))


def passes(sources: Sequence[Samples], *, indices: Sequence[Sequence[int]], batch_size: int, workers: int,
           pin: bool = False) -> Iterator[Iterator[RawBatch]]:
    """For every source the batches of the samples `indices` names, in order; one with images of several sizes comes as
    several, one for each size.

    Every pass has to be used up before the next begins. The workers do not stop in between.
    """
    plan = [[(place, index) for index in chosen[start:start + batch_size]]
            for place, chosen in enumerate(indices) for start in range(0, len(chosen), batch_size)]
    stream = _unpacked(DataLoader(
        _Sources(sources), batch_sampler=plan, num_workers=workers, collate_fn=_pack if workers else _collate,
        pin_memory=pin, prefetch_factor=AHEAD if workers else None))
    for chosen in indices:
        yield chain.from_iterable(islice(stream, -(-len(chosen) // batch_size)))


def _unpacked(loader: DataLoader) -> Iterator[tuple[RawBatch, ...]]:
    """Yield the batches. Raises ValueError, with the flags to change, where a worker was killed.

    For a fault in a worker torch writes 'in DataLoader worker process', for a killed one 'DataLoader worker (pid ...)'.
    """
    try:
        for batches in loader:
            yield batches.unpack() if isinstance(batches, _Packed) else batches
    except RuntimeError as error:
        if 'DataLoader worker (pid' not in str(error):
            raise
        raise ValueError('A worker process was killed, usually because memory is too small (/dev/shm in a container). '
                         'Run with fewer --workers or a smaller --batch-size.') from error


class _Sources(Dataset):
    """(which source, which sample) -> the sample, or why there is none."""

    def __init__(self, sources: Sequence[Samples]):
        self._sources = sources

    def __getitem__(self, place: tuple[int, int]) -> Sample | UnreadableImage:
        source, index = place
        try:
            return self._sources[source][index]
        except UnreadableImage as error:
            return error.with_traceback(None)


def _collate(items: list[Sample | UnreadableImage]) -> tuple[RawBatch, ...]:
    """A batch for each size of image, in the order of their first ones, before them one of what could not be read."""
    unreadable = tuple(item for item in items if isinstance(item, UnreadableImage))
    sizes: dict[torch.Size, list[Sample]] = {}
    for item in items:
        if isinstance(item, Sample):
            sizes.setdefault(item.image.shape, []).append(item)
    batches = tuple(map(_stacked, sizes.values()))
    return (RawBatch(_NOTHING, unreadable=unreadable), *batches) if unreadable else batches


@dataclass(frozen=True)
class _Packed:
    """The batches that a worker sends: all images in one tensor, all else as bytes.

    Every tensor that is sent between processes costs a file descriptor on both sides, so there is one for all sizes.
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
    """As `_collate`, in a worker. pickle copies the tensors in targets, which multiprocessing would share."""
    batches = _collate(items)
    shapes = [batch.images.shape for batch in batches]
    rest = pickle.dumps((shapes, [replace(batch, images=_NOTHING) for batch in batches]))
    return _Packed(torch.cat([batch.images.flatten() for batch in batches]), rest)


def _stacked(samples: list[Sample]) -> RawBatch:
    images = torch.stack([sample.image for sample in samples])
    return RawBatch(images, tuple(sample.id for sample in samples), tuple(sample.target for sample in samples))
