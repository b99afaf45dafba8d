"""Random numbers that belong to an image: what it draws depends on nothing else in its batch."""

import math
from collections.abc import Callable, Hashable, Sequence
from hashlib import blake2b
from operator import index
from typing import Any

import torch
from torch import Tensor

from pit_downstream.streams.poisson import poisson_table


def seed_of(*parts: Hashable) -> int:
    """A 63-bit seed that depends on every part, its type (1 is not '1') and the order; the same in every process."""
    text = '\0'.join(map(repr, parts))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), 'big') >> 1


def id_of(value: Any) -> Hashable:
    """Return the one form of an image id: text for a string or an integer of Python, NumPy or torch.

    A tuple is for internal use, such as (id, restart), and is returned as is. Raises ValueError for any other type.
    """
    if isinstance(value, tuple):
        return value
    if isinstance(value, str):
        return str(value)
    try:
        return str(index(value if not isinstance(value, bool) else None))
    except TypeError as error:
        raise ValueError(f'expected a string or an integer as image id, got {str(value)[:200]!r} of type '
                         f'{type(value).__name__}. Give each image a name or a number') from error


class BatchRng:
    """One stream of random numbers per image of a batch: an `Rng` for `corrupt`.

    seed: of the run. ids: one per image, a string, or an integer of any type, which is the same as its decimal
    spelling: [0, 1], np.arange(2), torch.arange(2) and ['0', '1'] give the same draws. The k-th draw of an image
    comes from a generator of its own, seeded by (seed, id, purpose, k): images may be split, mixed or repeated at will.
    Fields are float32 on `device`; a GPU's numbers differ from a CPU's. The first number of every shape is the number
    of images.
    """

    def __init__(self, seed: int, ids: Sequence[Hashable], *, device: torch.device | str = 'cpu', purpose: str = ''):
        self.seed, self.ids, self.device, self.purpose = seed, tuple(map(id_of, ids)), torch.device(device), purpose
        self._number = 0
        self._kept: dict[tuple, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, images: slice, purpose: str, device: torch.device | str) -> 'BatchRng':
        """A fresh one for some of the images and one purpose, such as the name of a corruption."""
        return BatchRng(self.seed, self.ids[images], device=device, purpose=purpose)

    def rows(self, images: Sequence[int], tags: Sequence[Hashable], purpose: str, device: torch.device | str
             ) -> 'BatchRng':
        """A fresh one with a stream for each (image, tag), such as the restarts of an attack on some images."""
        ids = [(self.ids[image], tag) for image, tag in zip(images, tags, strict=True)]
        return BatchRng(self.seed, ids, device=device, purpose=purpose)

    def restart(self, *, keep: bool = False) -> None:
        """Begin again with the first draw. keep: hold on to the fields, so that drawing them again costs a copy."""
        self._number = 0
        if keep and self._kept is None:
            self._kept = {}

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal."""
        return self._draw('normal', shape, torch.float32, lambda out, generator: out.normal_(generator=generator))

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Uniform in [0, 1)."""
        return self._draw('uniform', shape, torch.float32, lambda out, generator: out.uniform_(generator=generator))

    def integers(self, low: int, high: int | Tensor, shape: Sequence[int]) -> Tensor:
        """Uniform in low..high - 1, int32 or int64. high: one for all, or (B,), one per image for the shape (B,)."""
        if isinstance(high, Tensor):
            wide = self.integers(0, 2 ** 62, shape)  # so wide that the remainders are even to one part in 2^50
            return low + wide % (high.to(self.device) - low)
        span = high - low
        if span <= 256 and span & (span - 1) == 0:
            return self._bytes(shape).bitwise_and_(span - 1).int() + low
        dtype = torch.int32 if max(-low, high) < 2 ** 31 else torch.int64
        return self._draw(('integers', low, high), shape, dtype,
                          lambda out, generator: out.random_(low, high, generator=generator))

    def _bytes(self, shape: Sequence[int]) -> Tensor:
        """Uniform uint8, eight of them from each random number."""
        count = math.prod(shape[1:])
        words = self._draw('words', (shape[0], -(-count // 8)), torch.int64,
                           lambda out, generator: out.random_(-2 ** 63, None, generator=generator))
        return words.view(torch.uint8)[:, :count].reshape(tuple(shape))

    def poisson(self, rate: Tensor, index: Tensor | None = None) -> Tensor:
        """Poisson counts, float32. rate: (B, ...) of any rates; or, much faster, (K,) that `index` (B, ...) picks from.

        The fast way inverts the distribution at 31 random bits per value.
        """
        if index is None:
            counts = self._each(rate.shape, rate.dtype, lambda out, generator, image: out.copy_(
                torch.poisson(rate[image], generator=generator)))
            self._number += 1
            return counts
        bits = self._draw('bits', index.shape, torch.int32, lambda out, generator: out.random_(generator=generator))
        return poisson_table(tuple(rate.tolist()), self.device).counts(index, bits)

    def _draw(self, kind: Hashable, shape: Sequence[int], dtype: torch.dtype,
              fill: Callable[[Tensor, torch.Generator], object]) -> Tensor:
        key = (self._number, kind, tuple(shape))
        if self._kept is not None and key in self._kept:
            self._number += 1
            return self._kept[key].clone()
        drawn = self._each(shape, dtype, lambda out, generator, image: fill(out, generator))
        self._number += 1
        if self._kept is not None:
            self._kept[key] = drawn.clone()
        return drawn

    def _each(self, shape: Sequence[int], dtype: torch.dtype,
              fill: Callable[[Tensor, torch.Generator, int], object]) -> Tensor:
        if shape[0] != len(self):
            raise ValueError(f'expected a shape that begins with {len(self)}, the number of ids, got {tuple(shape)}; '
                             'give one id per image')
        drawn = torch.empty(tuple(shape), dtype=dtype, device=self.device)
        generator = torch.Generator(self.device)
        for image, name in enumerate(self.ids):
            generator.manual_seed(seed_of(self.seed, name, self.purpose, self._number))
            fill(drawn[image], generator, image)
        return drawn
