"""Noise: gaussian, shot, impulse. The five severities share one field per image."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pit_downstream.utils.registry import CORRUPTIONS
from pit_downstream.corruptions.base import REFERENCE, batched_severities

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng


@CORRUPTIONS.register('gaussian_noise', group='noise', strengths=(.08, .12, .18, .26, .38), source=REFERENCE)
def apply_gaussian_noise(images: Tensor, sigma: float, rng: 'Rng') -> Tensor:
    """Add sigma * n with n ~ N(0, 1) per value. images: (B, 3, H, W) in [0, 1]."""
    return torch.add(images, rng.normal(images.shape), alpha=sigma)


@CORRUPTIONS.register('shot_noise', group='noise', strengths=(60, 25, 12, 5, 3), source=REFERENCE, raw=True)
def apply_shot_noise(images: Tensor, photons: float, rng: 'Rng') -> Tensor:
    """Draw Poisson counts with mean photons * value and divide by photons. images: uint8 (B, 3, H, W)."""
    rates = torch.arange(256, dtype=torch.float64) * (photons / 255)
    return rng.poisson(rates, images) * (255 / photons)


@CORRUPTIONS.register('impulse_noise', group='noise', strengths=(.03, .06, .09, .17, .27), source=REFERENCE, raw=True)
@batched_severities
def apply_impulse_noise(images: Tensor, amounts: Sequence[float], rng: 'Rng') -> Iterator[Tensor]:
    """Set a fraction of the values to 0 or 255 with equal probability. images: uint8 (B, 3, H, W).

    As scikit-image's salt-and-pepper noise: per value, not per pixel. One uniform number selects the values, a second
    one salt or pepper.
    """
    chance = rng.uniform(images.shape)
    salt = (rng.uniform(images.shape) <= .5).to(torch.uint8) * 255
    change = salt - images  # modulo 256, as all uint8 sums
    for amount in amounts:
        yield images + (chance <= amount) * change
