"""Weather: snow, frost, fog, brightness."""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pit_downstream.utils.registry import CORRUPTIONS
from pit_downstream.corruptions.base import REFERENCE, batched_severities
from pit_downstream.corruptions.kernels import Padded, motion_kernels, sides
from pit_downstream.corruptions.plasma import plasma
from pit_downstream.corruptions.textures import FILES, fitted_texture
from pit_downstream.corruptions.zoom import zoom_extent, zoomed

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng

GREY = (.299, .587, .114)  # OpenCV's COLOR_RGB2GRAY
LONGEST_FLAKE = 2 * 12  # pixels after the first


class Snow(NamedTuple):
    """Strength of snow.

    mean, deviation: of the noise. zoom: its enlargement factor. threshold: minimum value of snow. radius, sigma: of
    the streaks. clear: weight of the image, the whitened image has 1 - clear.
    """

    mean: float
    deviation: float
    zoom: float
    threshold: float
    radius: int
    sigma: float
    clear: float


@CORRUPTIONS.register('snow', group='weather', source=REFERENCE, strengths=(
    Snow(.1, .3, 3, .5, 10, 4, .8), Snow(.2, .3, 2, .5, 12, 4, .7), Snow(.55, .3, 4, .9, 12, 8, .7),
    Snow(.55, .3, 4.5, .85, 12, 8, .65), Snow(.55, .3, 2.5, .85, 12, 12, .55)))
@batched_severities
def snow(images: Tensor, snows: Sequence[Snow], rng: 'Rng') -> Iterator[Tensor]:
    """Whiten the image and add a layer of snow streaks and its rotation by 180 degrees.

    images: (B, 3, H, W) in [0, 1].
    """
    size = images.shape[-2:]
    noise = rng.normal((len(images), *size))
    angles = rng.uniform((len(images),)) * 90 - 135
    gray = reduce(torch.add, (weight * images[:, channel] for channel, weight in enumerate(GREY)))
    white = torch.maximum(images, (gray * 1.5 + .5)[:, None])
    for strength in snows:
        layer = torch.round(flakes(noise, angles, strength) * 255) / 255
        layer = layer[..., :size[0], :size[1]]
        yield torch.lerp(white, images, strength.clear) + layer + layer.flip(-1, -2)


def flakes(noise: Tensor, angles: Tensor, strength: Snow) -> Tensor:
    """Enlarge noise, apply the threshold and blur along the angles. noise: (B, H, W). Returns (B, 1, H', W')."""
    extents = tuple(zoom_extent(length, strength.zoom) for length in noise.shape[-2:])
    layer = zoomed(noise * strength.deviation + strength.mean, extents).mT
    layer = F.threshold(layer, strength.threshold, 0).clamp_(0, 1)[:, None]
    side = round(LONGEST_FLAKE * .71)  # sin(45 degrees), rounded up
    margin = (LONGEST_FLAKE, 0, side, side)
    spectral = Padded(layer, margin, 'replicate')
    kernels = motion_kernels(angles, strength.radius, strength.sigma, size=sides(layer), margin=margin)
    return spectral.filtered(spectral.kernel_spectrum(kernels))


@CORRUPTIONS.register('frost', group='weather', source=REFERENCE, raw=True,
                      strengths=((1, .4), (.8, .6), (.7, .7), (.65, .7), (.6, .75)))  # weights of image and texture
@batched_severities
def frost(images: Tensor, weights: Sequence[tuple[float, float]], rng: 'Rng') -> Iterator[Tensor]:
    """Add a random crop of a random frost photograph. images: uint8 (B, 3, H, W)."""
    texture, levels = random_textures(images, rng).float(), images.float()
    for clear, frosted in weights:
        yield torch.add(levels * clear, texture, alpha=frosted)


def random_textures(images: Tensor, rng: 'Rng') -> Tensor:
    """Return a random texture crop per image, uint8, with the shape of the images."""
    size = sides(images)
    return random_pieces([fitted_texture(index, size, images.device)
                          for index in rng.integers(0, len(FILES), (len(images),)).tolist()], size, rng)


def random_pieces(textures: Sequence[Tensor], size: tuple[int, int], rng: 'Rng') -> Tensor:
    """Return a random crop of `size` from each texture (3, H', W'): (B, 3, *size)."""
    top, left = (rng.integers(0, torch.tensor([texture.shape[axis] - size[axis] for texture in textures]),
                              (len(textures),)).tolist() for axis in (-2, -1))
    return torch.stack([texture[:, y:y + size[0], x:x + size[1]]
                        for texture, y, x in zip(textures, top, left, strict=True)])


class Fog(NamedTuple):
    """Strength of fog. thickness: its maximum. decay: of the plasma's wibble, smaller values give finer fog."""

    thickness: float
    decay: float


@CORRUPTIONS.register('fog', group='weather', source=REFERENCE,
                      strengths=(Fog(1.5, 2), Fog(2, 2), Fog(2.5, 1.7), Fog(2.5, 1.5), Fog(3, 1.4)))
@batched_severities
def fog(images: Tensor, fogs: Sequence[Fog], rng: 'Rng') -> Iterator[Tensor]:
    """Add a plasma and rescale to the image's maximum. images: (B, 3, H, W) in [0, 1]."""
    size = sides(images)
    side = 1 << (max(size) - 1).bit_length()
    noise = rng.uniform((len(images), side * side - 1))
    peak = images.amax((1, 2, 3), keepdim=True)
    maps: dict[float, Tensor] = {}
    for thickness, decay in fogs:
        if decay not in maps:
            maps[decay] = plasma(noise, decay, size)[:, None]
        yield torch.add(images, maps[decay], alpha=thickness) * (peak / (peak + thickness))


@CORRUPTIONS.register('brightness', group='weather', strengths=(.1, .2, .3, .4, .5), source=REFERENCE)
def brightness(images: Tensor, amount: float, rng: 'Rng') -> Tensor:
    """Increase the HSV value. images: (B, 3, H, W) in [0, 1].

    Hue and saturation are unchanged, so all channels are scaled by the same factor. Black becomes gray.
    """
    value = images.amax(1, keepdim=True)
    raised = (value + amount).clamp_max(1)
    black = value == 0
    return torch.addcmul(torch.where(black, raised, 0), images, raised / torch.where(black, 1, value))
