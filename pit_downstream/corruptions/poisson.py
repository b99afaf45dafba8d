"""Poisson counts by looking them up: inversion at 31 random bits, exact to one part in 2^31."""

from functools import lru_cache

import torch
from torch import Tensor

BITS = 31  # what torch's random_() fills of an int32
BUCKET_BITS = 12  # a rate's table has 2^12 buckets; in 60 or fewer of them lies a step of the distribution
FINE_BITS = BITS - BUCKET_BITS
UNDECIDED = 255  # in the table: the bucket holds a step, so the other bits decide


class PoissonTable:
    """The counts of a few rates, by the upper bits of a random number.

    rates: (K,) float64. Counts from 255 on cannot occur at 31 bits for rates up to 150; more is refused.
    """

    def __init__(self, rates: Tensor):
        if rates.amax() > 150:
            raise ValueError(f'expected rates up to 150, got {rates.amax():g}; draw from poisson(rate) without an index')
        count = torch.arange(UNDECIDED, dtype=torch.float64, device=rates.device)
        below = torch.special.gammaincc(count + 1, rates[:, None].double())  # P(X <= count)
        steps = (below * 2 ** BITS).long() + (torch.arange(len(rates), device=rates.device)[:, None] << BITS)
        self.steps = steps.flatten()  # ascending: a step of rate i at bits b stands as i * 2^31 + b
        inside = torch.bincount(self.steps >> FINE_BITS, minlength=(len(rates) << BUCKET_BITS) + 1)[:-1]
        reached = inside.cumsum(0) - inside
        level = torch.arange(len(reached), device=rates.device) >> BUCKET_BITS
        self.buckets = torch.where(inside > 0, UNDECIDED, reached - level * UNDECIDED).to(torch.uint8)

    def counts(self, index: Tensor, bits: Tensor) -> Tensor:
        """index: (...) which rate, uint8 or integer. bits: (...) int32 in [0, 2^31). Returns (...) float32."""
        shape, index, bits = index.shape, index.flatten(), bits.flatten()
        counts = self.buckets.index_select(0, (index.int() << BUCKET_BITS) + (bits >> FINE_BITS))
        places = (counts == UNDECIDED).nonzero()[:, 0]
        rate = index[places].long()
        exact = torch.searchsorted(self.steps, (rate << BITS) + bits[places], right=True) - rate * UNDECIDED
        return counts.float().index_copy_(0, places, exact.float()).view(shape)


@lru_cache(maxsize=16)
def poisson_table(rates: tuple[float, ...], device: torch.device) -> PoissonTable:
    return PoissonTable(torch.tensor(rates, dtype=torch.float64, device=device))
