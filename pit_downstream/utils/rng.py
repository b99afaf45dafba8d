"""Per-image random numbers: the draws of an image do not depend on the rest of its batch."""

import math
from collections.abc import Callable, Hashable, Sequence
from hashlib import blake2b
from operator import index
from typing import Any

import torch
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.poisson import make_poisson_table


def compute_seed(*parts: Hashable) -> int:
    """Return a 63-bit seed from parts, their types (1 is not '1') and their order. It is the same in every process."""
    text = '\0'.join(map(repr, parts))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), 'big') >> 1


def normalize_id(value: Any) -> Hashable:
    """Return the canonical form of an image id: text for a string or an integer of Python, NumPy or torch.

    Tuples such as (id, restart) are for internal use and returned unchanged. Raises InputError for any other type.
    """
    if isinstance(value, tuple):
        return value
    if isinstance(value, str):
        return str(value)
    try:
        if isinstance(value, bool):
            raise TypeError('a bool is not an id')
        return str(index(value))
    except TypeError as error:
        raise InputError(f'expected a string or an integer as image id, got {str(value)[:200]!r} of type '
                         f'{type(value).__name__}. Give each image a name or a number') from error


class BatchRng:
    """`Rng` with one stream of random numbers per image of a batch.

    seed: of the run. ids: one string or integer per image. An integer is equivalent to its decimal text: [0, 1],
    np.arange(2), torch.arange(2) and ['0', '1'] give the same draws. The k-th draw of an image uses a separate
    generator, seeded by (seed, id, purpose, k). Batches can therefore be split, reordered or repeated.
    Normal and uniform draws are float32. CPU and GPU draws differ. The first dimension of every shape is the number of
    images.
    """

    def __init__(self, seed: int, ids: Sequence[Hashable], *, device: torch.device | str = 'cpu', purpose: str = ''):
        self.seed, self.ids, self.device, self.purpose = seed, tuple(map(normalize_id,
                                                                         ids)), torch.device(device), purpose
        self._number = 0
        self._kept: dict[tuple, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, images: slice, purpose: str, device: torch.device | str) -> 'BatchRng':
        """Return a new `BatchRng` for some of the images and one purpose, such as the name of a corruption."""
        return BatchRng(self.seed, self.ids[images], device=device, purpose=purpose)

    def rows(self, images: Sequence[int], tags: Sequence[Hashable], purpose: str, device: torch.device | str
             ) -> 'BatchRng':
        """Return a new `BatchRng` with one stream per (image, tag), such as the restarts of an attack."""
        ids = [(self.ids[image], tag) for image, tag in zip(images, tags, strict=True)]
        return BatchRng(self.seed, ids, device=device, purpose=purpose)

    def restart(self, *, keep: bool = False) -> None:
        """Restart at the first draw. keep: store the draws, so that later repetitions are copies."""
        self._number = 0
        if keep and self._kept is None:
            self._kept = {}

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Draw from the standard normal distribution."""
        return self._draw('normal', shape, torch.float32, lambda out, generator: out.normal_(generator=generator))

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Draw uniformly from [0, 1)."""
        return self._draw('uniform', shape, torch.float32, lambda out, generator: out.uniform_(generator=generator))

    def integers(self, low: int, high: int | Tensor, shape: Sequence[int]) -> Tensor:
        """Draw uniformly from low..high - 1, int32 or int64. high: a number, or (B,) per image for the shape (B,)."""
        if isinstance(high, Tensor):
            wide = self.integers(0, 2 ** 62, shape)  # wide enough for remainders that are uniform to one part in 2^50
            return low + wide % (high.to(self.device) - low)
        span = high - low
        if span <= 256 and span & (span - 1) == 0:
            return self._draw_bytes(shape).bitwise_and_(span - 1).int() + low
        dtype = torch.int32 if max(-low, high) < 2 ** 31 else torch.int64
        return self._draw(('integers', low, high), shape, dtype,
                          lambda out, generator: out.random_(low, high, generator=generator))

    def _draw_bytes(self, shape: Sequence[int]) -> Tensor:
        """Draw uniform uint8, eight from each random number."""
        count = math.prod(shape[1:])
        words = self._draw('words', (shape[0], -(-count // 8)), torch.int64,
                           lambda out, generator: out.random_(-2 ** 63, None, generator=generator))
        return words.view(torch.uint8)[:, :count].reshape(tuple(shape))

    def poisson(self, rate: Tensor, index: Tensor | None = None) -> Tensor:
        """Draw Poisson counts, float32. rate: (B, ...), or (K,) with an `index` (B, ...) into it, which is much faster.

        The fast method inverts the distribution at 31 random bits per value.
        """
        if index is None:
            counts = self._fill_per_image(rate.shape, rate.dtype, lambda out, generator, image: out.copy_(
                torch.poisson(rate[image], generator=generator)))
            self._number += 1
            return counts
        bits = self._draw('bits', index.shape, torch.int32, lambda out, generator: out.random_(generator=generator))
        return make_poisson_table(tuple(rate.tolist()), self.device).lookup_counts(index, bits)

    def _draw(self, kind: Hashable, shape: Sequence[int], dtype: torch.dtype,
              fill: Callable[[Tensor, torch.Generator], object]) -> Tensor:
        key = (self._number, kind, tuple(shape))
        if self._kept is not None and key in self._kept:
            self._number += 1
            return self._kept[key].clone()
        drawn = self._fill_per_image(shape, dtype, lambda out, generator, image: fill(out, generator))
        self._number += 1
        if self._kept is not None:
            self._kept[key] = drawn.clone()
        return drawn

    def _fill_per_image(self, shape: Sequence[int], dtype: torch.dtype,
                        fill: Callable[[Tensor, torch.Generator, int], object]) -> Tensor:
        if shape[0] != len(self):
            raise InputError(f'expected a shape that begins with {len(self)}, the number of ids, got {tuple(shape)}; '
                             'give one id per image')
        drawn = torch.empty(tuple(shape), dtype=dtype, device=self.device)
        generator = torch.Generator(self.device)
        for image, name in enumerate(self.ids):
            generator.manual_seed(compute_seed(self.seed, name, self.purpose, self._number))
            fill(drawn[image], generator, image)
        return drawn
