"""Hold-out corruptions of ImageNet-C: speckle noise, gaussian blur, spatter, saturate."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pit_downstream.corruptions.base import REFERENCE, batched_severities
from pit_downstream.corruptions.edges import STRAIGHT, compute_distances, detect_edges, equalize_histograms, sum_boxes
from pit_downstream.corruptions.kernels import PaddedSpectrum, center_kernel, filter_gaussian, make_gaussian_taps
from pit_downstream.utils.registry import CORRUPTIONS

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng

WIDEST_BLUR = 24  # 4 sigma of the strongest gaussian_blur
WATER = (175 / 255, 238 / 255, 238 / 255)  # pale turquoise
MUD = (63 / 255, 42 / 255, 20 / 255)  # brown
THIN = .8  # mud below this is removed
RELIEF = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))  # emboss kernel: light from one side


@CORRUPTIONS.register('speckle_noise', group='extra', strengths=(.15, .2, .35, .45, .6), source=REFERENCE)
def apply_speckle_noise(images: Tensor, sigma: float, rng: 'Rng') -> Tensor:
    """Multiply by 1 + sigma * n with n ~ N(0, 1) per value. images: (B, 3, H, W) in [0, 1]."""
    return torch.addcmul(images, images, rng.normal(images.shape), value=sigma)


@CORRUPTIONS.register('gaussian_blur', group='extra', strengths=(1, 2, 3, 4, 6), source=REFERENCE)
@batched_severities
def apply_gaussian_blur(images: Tensor, sigmas: Sequence[float], rng: 'Rng') -> Iterator[Tensor]:
    """Blur with a Gaussian truncated at 4 sigma. images: (B, 3, H, W) in [0, 1]."""
    spectral = PaddedSpectrum(images, (WIDEST_BLUR,) * 4, 'replicate')
    for sigma in sigmas:
        yield spectral.filter(make_gaussian_spectrum(sigma, spectral.size, images.device))


@lru_cache(maxsize=64)
def make_gaussian_spectrum(sigma: float, size: tuple[int, int], device: torch.device) -> Tensor:
    taps = make_gaussian_taps(sigma)
    kernel = center_kernel(torch.outer(taps, taps), WIDEST_BLUR).to(device)
    return torch.fft.rfft2(kernel, s=size)


class Drops(NamedTuple):
    """Strength of spatter.

    mean, deviation: of the noise. sigma: of its blur. threshold: minimum value of liquid. strength: of the water.
    mud: sigma of the mud's blur, None for water.
    """

    mean: float
    deviation: float
    sigma: float
    threshold: float
    strength: float = 1
    mud: float | None = None


@CORRUPTIONS.register('spatter', group='extra', source=REFERENCE, strengths=(
    Drops(.65, .3, 4, .69, .6), Drops(.65, .3, 3, .68, .6), Drops(.65, .3, 2, .68, .5),
    Drops(.65, .3, 1, .65, mud=1.5), Drops(.67, .4, 1, .65, mud=1.5)))
def apply_spatter(images: Tensor, drops: Drops, rng: 'Rng') -> Tensor:
    """Add drops on the lens: water up to severity 3, mud from 4 on. images: (B, 3, H, W) in [0, 1]."""
    noise = rng.normal((len(images), *images.shape[-2:])).double()  # float32 rounding could move an edge
    liquid = filter_gaussian((noise * drops.deviation + drops.mean)[:, None], (drops.sigma, drops.sigma))[:, 0]
    return add_water(images, liquid, drops) if drops.mud is None else add_mud(images, liquid, drops)


@CORRUPTIONS.register('saturate', group='extra', source=REFERENCE,
                      strengths=((.3, 0), (.1, 0), (2, 0), (5, .1), (20, .2)))  # factor, offset
def apply_saturate(images: Tensor, strength: tuple[float, float], rng: 'Rng') -> Tensor:
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


def add_water(images: Tensor, liquid: Tensor, drops: Drops) -> Tensor:
    """Add water drops. images: (B, 3, H, W) in [0, 1]. liquid: float64 (B, H, W)."""
    liquid = torch.where(liquid < drops.threshold, 0, liquid * 255).clamp_(0, 255).int()
    layer = (liquid * compute_relief(liquid)).float()
    peak = layer.amax((1, 2), keepdim=True)
    layer = layer * (drops.strength / torch.where(peak == 0, 1, peak))
    return images + layer[:, None] * torch.tensor(WATER, device=images.device).view(3, 1, 1)


def compute_relief(liquid: Tensor) -> Tensor:
    """Return the lightness of the drops, integers in 0..255. liquid: int32 (B, H, W) in 0..255."""
    depth = compute_distances(detect_edges(liquid, 50, 150))
    depth = (sum_boxes(depth) / STRAIGHT * (1 / 9)).float().int()
    depth = equalize_histograms(depth)
    kernel = torch.tensor(RELIEF, dtype=torch.float32, device=liquid.device)[None, None]
    framed = F.pad(depth[:, None].float(), (1, 1, 1, 1), mode='reflect')
    embossed = F.conv2d(framed, kernel)[:, 0].clamp_(0, 255)
    return torch.round(sum_boxes(embossed) / 9)


def add_mud(images: Tensor, liquid: Tensor, drops: Drops) -> Tensor:
    """Cover the images with mud above a minimum thickness. liquid: (B, H, W)."""
    assert drops.mud is not None
    mud = filter_gaussian((liquid > drops.threshold).float()[:, None], (drops.mud, drops.mud))
    mud = torch.where(mud < THIN, 0, mud)
    return images * (1 - mud) + mud * torch.tensor(MUD, device=images.device).view(3, 1, 1)
