"""Poisson counts from lookup tables: inversion of 31 random bits, exact to one part in 2^31."""

from functools import lru_cache

import torch
from torch import Tensor

from pit_downstream.utils.errors import InputError

BITS = 31  # torch's random_() fills 31 bits in an int32
BUCKET_BITS = 11  # a rate's table has 2^11 buckets, of which at most 80 contain a step of the distribution
FINE_BITS = BITS - BUCKET_BITS
COUNTS = 127  # larger counts are negligible: P(X > 126) is 1e-13 at the highest rate
HIGHEST_RATE = 60
UNDECIDED = 255  # in the table: the bucket contains a step, so the lower bits select the count


class PoissonTable:
    """Lookup table of Poisson counts for a few rates, indexed by upper random bits.

    rates: (K,) float64, at most 60.
    """

    def __init__(self, rates: Tensor):
        if rates.amax() > HIGHEST_RATE:
            raise InputError(f'expected rates up to {HIGHEST_RATE}, got {rates.amax():g}; '
                             'call poisson(rate) without index')
        count = torch.arange(COUNTS, dtype=torch.float64, device=rates.device)
        below = torch.special.gammaincc(count + 1, rates[:, None].double())  # P(X <= count)
        steps = (below * 2 ** BITS).round().long() + (torch.arange(len(rates), device=rates.device)[:, None] << BITS)
        self.steps = steps.flatten()  # ascending: a step of rate i at bits b is stored as i * 2^31 + b
        inside = torch.bincount(self.steps >> FINE_BITS, minlength=(len(rates) << BUCKET_BITS) + 1)[:-1]
        reached = inside.cumsum(0) - inside
        level = torch.arange(len(reached), device=rates.device) >> BUCKET_BITS
        self.buckets = torch.where(inside > 0, UNDECIDED, reached - level * COUNTS).to(torch.uint8)

    def lookup_counts(self, index: Tensor, bits: Tensor) -> Tensor:
        """Look up counts, float32 (...). index: (...) of the rate, uint8 or integer. bits: (...) int32 in [0, 2^31)."""
        shape, index, bits = index.shape, index.flatten(), bits.flatten()
        counts = self.buckets.index_select(0, torch.add(bits >> FINE_BITS, index.int(), alpha=1 << BUCKET_BITS))
        places = (counts >> 7).nonzero()[:, 0]
        rate = index[places].long()
        exact = torch.searchsorted(self.steps, (rate << BITS) + bits[places], right=True) - rate * COUNTS
        return counts.float().index_copy_(0, places, exact.float()).view(shape)


@lru_cache(maxsize=16)
def make_poisson_table(rates: tuple[float, ...], device: torch.device) -> PoissonTable:
    return PoissonTable(torch.tensor(rates, dtype=torch.float64, device=device))
