"""Hold-out corruptions of ImageNet-C: speckle noise, gaussian blur, spatter, saturate."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pit_downstream.utils.registry import CORRUPTIONS
from pit_downstream.corruptions.base import REFERENCE, batched_severities
from pit_downstream.corruptions.kernels import Padded, centerd, gaussian_blurred, gaussian_taps
from pit_downstream.corruptions.spatter import Drops, muddied, watered

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng

WIDEST_BLUR = 24  # 4 sigma of the strongest gaussian_blur


@CORRUPTIONS.register('speckle_noise', group='extra', strengths=(.15, .2, .35, .45, .6), source=REFERENCE)
def speckle_noise(images: Tensor, sigma: float, rng: 'Rng') -> Tensor:
    """Multiply by 1 + sigma * n with n ~ N(0, 1) per value. images: (B, 3, H, W) in [0, 1]."""
    return torch.addcmul(images, images, rng.normal(images.shape), value=sigma)


@CORRUPTIONS.register('gaussian_blur', group='extra', strengths=(1, 2, 3, 4, 6), source=REFERENCE)
@batched_severities
def gaussian_blur(images: Tensor, sigmas: Sequence[float], rng: 'Rng') -> Iterator[Tensor]:
    """Blur with a Gaussian truncated at 4 sigma. images: (B, 3, H, W) in [0, 1]."""
    spectral = Padded(images, (WIDEST_BLUR,) * 4, 'replicate')
    for sigma in sigmas:
        yield spectral.filtered(gaussian_spectrum(sigma, spectral.size, images.device))


@lru_cache(maxsize=64)
def gaussian_spectrum(sigma: float, size: tuple[int, int], device: torch.device) -> Tensor:
    taps = gaussian_taps(sigma)
    kernel = centerd(torch.outer(taps, taps), WIDEST_BLUR).to(device)
    return torch.fft.rfft2(kernel, s=size)


@CORRUPTIONS.register('spatter', group='extra', source=REFERENCE, strengths=(
    Drops(.65, .3, 4, .69, .6), Drops(.65, .3, 3, .68, .6), Drops(.65, .3, 2, .68, .5),
    Drops(.65, .3, 1, .65, mud=1.5), Drops(.67, .4, 1, .65, mud=1.5)))
def spatter(images: Tensor, drops: Drops, rng: 'Rng') -> Tensor:
    """Add drops on the lens: water up to severity 3, mud from 4 on. images: (B, 3, H, W) in [0, 1]."""
    noise = rng.normal((len(images), *images.shape[-2:])).double()  # float32 rounding could move an edge
    liquid = gaussian_blurred((noise * drops.deviation + drops.mean)[:, None], (drops.sigma, drops.sigma))[:, 0]
    return watered(images, liquid, drops) if drops.mud is None else muddied(images, liquid, drops)


@CORRUPTIONS.register('saturate', group='extra', source=REFERENCE,
                      strengths=((.3, 0), (.1, 0), (2, 0), (5, .1), (20, .2)))  # factor, offset
def saturate(images: Tensor, strength: tuple[float, float], rng: 'Rng') -> Tensor:
    """Scale and shift the saturation of HSV. images: (B, 3, H, W) in [0, 1].

    Hue and value are unchanged, so each channel's distance from the largest is scaled by one factor. Gray pixels have
    hue 0 in the reference, so added saturation makes them red.
    """
    factor, offset = strength
    value, spread = images.amax(1, keepdim=True), images.amax(1, keepdim=True) - images.amin(1, keepdim=True)
    gray = spread == 0
    saturation = spread / torch.where(value == 0, 1, value)
    wanted = (saturation * factor + offset).clamp_(0, 1)
    result = torch.addcmul(value, value - images, wanted / torch.where(gray, 1, saturation), value=-1)
    result[:, 1:] -= torch.where(gray, value * wanted, 0)
    return result
