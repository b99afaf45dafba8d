"""Load blocks of raw images with workers, in one stream over all blocks."""

import logging
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pit_downstream.datasets.base import Samples, UnreadableImage
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Batch, Predictor, Sample
from pit_downstream.utils.rng import BatchRng

_log = logging.getLogger(__name__)

AHEAD = 2  # prefetched batches per worker
MAX_BYTES = 512 << 20  # of decoded images in memory; a block with more is evaluated in parts
_NOTHING = torch.empty(0, 3, 1, 1, dtype=torch.uint8)


@dataclass(frozen=True)
class RawBatch:
    """A batch of uint8 images (B, 3, H, W) of one size, with dataset indices, ids and targets."""

    images: Tensor
    indices: tuple[int, ...] = ()
    ids: tuple[str, ...] = ()
    targets: tuple = ()

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> 'RawBatch':
        return replace(self, images=self.images.to(device, non_blocking=True))

    def select(self, rows: Sequence[int]) -> 'RawBatch':
        """Return the images with the indices `rows`, in that order."""
        return RawBatch(self.images[list(rows)], tuple(self.indices[row] for row in rows),
                        tuple(self.ids[row] for row in rows), tuple(self.targets[row] for row in rows))

    def samples(self, images: Tensor) -> tuple[Sample, ...]:
        """Return the samples with `images` (B, 3, H, W) in place of the raw images."""
        return tuple(map(Sample, self.ids, images, self.targets))


@dataclass(frozen=True)
class Block:
    """Decoded images of one source, at most MAX_BYTES of them.

    Attributes:
        source: Number of the source.
        batches: Batches of readable images, one or more per batch of indices: images of one size each.
        unreadable: Errors of the other images, by dataset index.
    """

    source: int
    batches: tuple[RawBatch, ...]
    unreadable: Mapping[int, UnreadableImage]

    @property
    def indices(self) -> list[int]:
        """Dataset indices of the readable images, ascending."""
        return sorted(index for batch in self.batches for index in batch.indices)


def load_blocks(sources: Sequence[Samples], plan: Sequence[tuple[int, Sequence[int]]], *, batch_size: int, workers: int,
                pin: bool = False) -> Iterator[Block]:
    """Yield the images of a plan, decoded once. Workers keep running between blocks.

    Args:
        plan: Blocks (source, indices).
        batch_size: Images per batch. A batch of images of several sizes is split into one batch per size.
        workers: Number of decoding processes.
        pin: Pin images for an asynchronous copy to a GPU.
    """
    batches = [[(source, index) for index in indices[start:start + batch_size]]
               for source, indices in plan for start in range(0, len(indices), batch_size)]
    stream = _unpack_batches(DataLoader(
        _Sources(sources), batch_sampler=batches, num_workers=workers, collate_fn=_pack if workers else _collate,
        pin_memory=pin, prefetch_factor=AHEAD if workers else None))
    for source, indices in plan:
        loaded: list[RawBatch] = []
        unreadable: dict[int, UnreadableImage] = {}
        for _ in range(0, len(indices), batch_size):
            new, errors = next(stream)
            if loaded and sum(batch.images.numel() for batch in (*loaded, *new)) > MAX_BYTES:
                yield Block(source, tuple(loaded), unreadable)
                loaded, unreadable = [], {}
            loaded += new
            unreadable |= errors
        yield Block(source, tuple(loaded), unreadable)


Loaded = tuple[list[RawBatch], dict[int, UnreadableImage]]


def _unpack_batches(loader: DataLoader) -> Iterator[Loaded]:
    """Yield the batches. If a worker was killed, raise InputError with the flags to change.

    torch reports an exception in a worker as 'in DataLoader worker process', a killed worker as 'DataLoader worker (pid
    ...)'.
    """
    try:
        for loaded in loader:
            yield loaded.unpack() if isinstance(loaded, _Packed) else loaded
    except RuntimeError as error:
        if 'DataLoader worker (pid' not in str(error):
            raise
        raise InputError('A worker process was killed, usually because memory is too small (/dev/shm in a container). '
                         'Run with fewer --workers or a smaller --batch-size.') from error


class _Sources(Dataset):
    """Dataset that maps (source, index) to the index and its sample, or the reason why it is unreadable."""

    def __init__(self, sources: Sequence[Samples]):
        self._sources = sources

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Sample | UnreadableImage]:
        source, index = key
        try:
            return index, self._sources[source][index]
        except UnreadableImage as error:
            return index, error.with_traceback(None)


def _collate(items: list[tuple[int, Sample | UnreadableImage]]) -> Loaded:
    """Return one batch per image size, in order of first occurrence, and the errors by index."""
    sizes: dict[torch.Size, list[tuple[int, Sample]]] = {}
    for index, item in items:
        if isinstance(item, Sample):
            sizes.setdefault(item.image.shape, []).append((index, item))
    errors = {index: item for index, item in items if isinstance(item, UnreadableImage)}
    return list(map(_stack, sizes.values())), errors


@dataclass(frozen=True)
class _Packed:
    """Batches as a worker sends them: all images in one tensor, the rest as bytes.

    Each tensor sent between processes costs a file descriptor on both sides, so all sizes share one tensor.
    """

    pixels: Tensor  # uint8, flat
    rest: bytes

    def pin_memory(self) -> '_Packed':
        return replace(self, pixels=self.pixels.pin_memory())

    def unpack(self) -> Loaded:
        shapes, batches, errors = pickle.loads(self.rest)
        images = self.pixels.split([math.prod(shape) for shape in shapes])
        return [replace(batch, images=flat.view(shape))
                for batch, flat, shape in zip(batches, images, shapes, strict=True)], errors


def _pack(items: list[tuple[int, Sample | UnreadableImage]]) -> _Packed:
    """Collate and pack in a worker. pickle copies the tensors in targets, which multiprocessing would share."""
    batches, errors = _collate(items)
    shapes = [batch.images.shape for batch in batches]
    rest = pickle.dumps((shapes, [replace(batch, images=_NOTHING) for batch in batches], errors))
    return _Packed(torch.cat([batch.images.flatten() for batch in batches] or [_NOTHING.flatten()]), rest)


def _stack(items: list[tuple[int, Sample]]) -> RawBatch:
    indices, samples = zip(*items, strict=True)
    return RawBatch(torch.stack([sample.image for sample in samples]), indices,
                    tuple(sample.id for sample in samples), tuple(sample.target for sample in samples))


def draw_batches(predictor: Predictor, samples: Sequence[Sample], *, count: int, size: int, seed: int = 0,
                 allow_missing: int = 0) -> Iterator[Batch]:
    """Yield `count` batches of `size` samples drawn at random, for the training of a patch.

    Up to `allow_missing` unreadable images are replaced by the next readable ones; one more raises InputError.
    """
    if count < 1 or not isinstance(size, int):
        raise InputError(f'expected 1 step or more and a number as batch size, got {count} and {size}')
    unreadable: dict[int, UnreadableImage] = {}

    def read_sample(start: int) -> Sample:
        for index in chain(range(start, len(samples)), range(start)):
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
