"""Weather: snow, frost, fog, brightness."""

from collections.abc import Iterator, Sequence
from functools import lru_cache, reduce
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pit_downstream.corruptions.base import REFERENCE, batched_severities
from pit_downstream.corruptions.kernels import PaddedSpectrum, get_size, make_motion_kernels
from pit_downstream.corruptions.zoom import compute_zoom_extent, resize_center
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import CORRUPTIONS

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng

GRAY_WEIGHTS = (.299, .587, .114)  # OpenCV's COLOR_RGB2GRAY
LONGEST_FLAKE = 2 * 12  # pixels after the first
WIBBLE = 100  # the first level's amplitude; squared in use because the reference multiplies twice
# the reference never draws frost6.jpg
FROST_FILES = ('frost1.png', 'frost2.png', 'frost3.png', 'frost4.jpg', 'frost5.jpg')


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
def apply_snow(images: Tensor, snows: Sequence[Snow], rng: 'Rng') -> Iterator[Tensor]:
    """Whiten the image and add a layer of snow streaks and its rotation by 180 degrees.

    images: (B, 3, H, W) in [0, 1].
    """
    size = images.shape[-2:]
    noise = rng.normal((len(images), *size))
    angles = rng.uniform((len(images),)) * 90 - 135
    gray = reduce(torch.add, (weight * images[:, channel] for channel, weight in enumerate(GRAY_WEIGHTS)))
    white = torch.maximum(images, (gray * 1.5 + .5)[:, None])
    for strength in snows:
        layer = torch.round(make_snow_layer(noise, angles, strength) * 255) / 255
        layer = layer[..., :size[0], :size[1]]
        yield torch.lerp(white, images, strength.clear) + layer + layer.flip(-1, -2)


def make_snow_layer(noise: Tensor, angles: Tensor, strength: Snow) -> Tensor:
    """Enlarge noise, apply the threshold and blur along the angles. noise: (B, H, W). Returns (B, 1, H', W')."""
    extents = tuple(compute_zoom_extent(length, strength.zoom) for length in noise.shape[-2:])
    layer = resize_center(noise * strength.deviation + strength.mean, extents).mT
    layer = F.threshold(layer, strength.threshold, 0).clamp_(0, 1)[:, None]
    side = round(LONGEST_FLAKE * .71)  # sin(45 degrees), rounded up
    margin = (LONGEST_FLAKE, 0, side, side)
    spectral = PaddedSpectrum(layer, margin, 'replicate')
    kernels = make_motion_kernels(angles, strength.radius, strength.sigma, size=get_size(layer), margin=margin)
    return spectral.filter(spectral.transform_kernels(kernels))


@CORRUPTIONS.register('frost', group='weather', source=REFERENCE, raw=True,
                      strengths=((1, .4), (.8, .6), (.7, .7), (.65, .7), (.6, .75)))  # weights of image and texture
@batched_severities
def apply_frost(images: Tensor, weights: Sequence[tuple[float, float]], rng: 'Rng') -> Iterator[Tensor]:
    """Add a random crop of a random frost photograph. images: uint8 (B, 3, H, W)."""
    texture, levels = crop_random_textures(images, rng).float(), images.float()
    for clear, frosted in weights:
        yield torch.add(levels * clear, texture, alpha=frosted)


def crop_random_textures(images: Tensor, rng: 'Rng') -> Tensor:
    """Return a random texture crop per image, uint8, with the shape of the images."""
    size = get_size(images)
    return crop_randomly([fit_frost_texture(index, size, images.device)
                          for index in rng.integers(0, len(FROST_FILES), (len(images),)).tolist()], size, rng)


def crop_randomly(textures: Sequence[Tensor], size: tuple[int, int], rng: 'Rng') -> Tensor:
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
def apply_fog(images: Tensor, fogs: Sequence[Fog], rng: 'Rng') -> Iterator[Tensor]:
    """Add a plasma and rescale to the image's maximum. images: (B, 3, H, W) in [0, 1]."""
    size = get_size(images)
    side = 1 << (max(size) - 1).bit_length()
    noise = rng.uniform((len(images), side * side - 1))
    peak = images.amax((1, 2, 3), keepdim=True)
    maps: dict[float, Tensor] = {}
    for thickness, decay in fogs:
        if decay not in maps:
            maps[decay] = make_plasma(noise, decay, size)[:, None]
        yield torch.add(images, maps[decay], alpha=thickness) * (peak / (peak + thickness))


@CORRUPTIONS.register('brightness', group='weather', strengths=(.1, .2, .3, .4, .5), source=REFERENCE)
def apply_brightness(images: Tensor, amount: float, rng: 'Rng') -> Tensor:
    """Increase the HSV value. images: (B, 3, H, W) in [0, 1].

    Hue and saturation are unchanged, so all channels are scaled by the same factor. Black becomes gray.
    """
    value = images.amax(1, keepdim=True)
    raised = (value + amount).clamp_max(1)
    black = value == 0
    return torch.addcmul(torch.where(black, raised, 0), images, raised / torch.where(black, 1, value))


def make_plasma(noise: Tensor, decay: float, size: tuple[int, int]) -> Tensor:
    """Return the top left crop of square, periodic height maps in [0, 1].

    noise: (B, side * side - 1) uniform in [0, 1), level by level: squares, then the diamonds above and beside. side is
    a power of two. decay: divisor of the wibble per level. Returns (B, *size).
    Source: mapgen's diamondsquare.py by FLHerne, as modified by imagecorruptions.
    """
    heights = noise.new_zeros(len(noise), 1, 1)
    wibble, used = float(WIBBLE), 0
    while used < noise.shape[1]:
        cells = heights.shape[-1] ** 2
        level = noise[:, used:used + 3 * cells] * (2 * wibble ** 2) - wibble ** 2
        heights = _refine(heights, level.view(len(noise), 3, *heights.shape[-2:]))
        wibble, used = wibble / decay, used + 3 * cells
    low, high = heights.amin((1, 2), keepdim=True), heights.amax((1, 2), keepdim=True)
    return (heights[:, :size[0], :size[1]] - low) / (high - low)


def _refine(corners: Tensor, wobble: Tensor) -> Tensor:
    """Add one level. corners: (B, n, n). wobble: (B, 3, n, n) for centers, upper, left edges. Returns (B, 2 n, 2 n)."""
    below = corners + corners.roll(-1, 1)
    beside = corners + corners.roll(-1, 2)
    centers = (below + below.roll(-1, 2)) / 4 + wobble[:, 0]
    upper = (centers + centers.roll(1, 1) + beside) / 4 + wobble[:, 1]
    left = (centers + centers.roll(1, 2) + below) / 4 + wobble[:, 2]
    batch, side = corners.shape[:2]
    upper_rows, lower_rows = torch.complex(corners, upper), torch.complex(left, centers)  # faster than stack
    return torch.view_as_real(torch.stack((upper_rows, lower_rows), 2)).view(batch, 2 * side, 2 * side)


@lru_cache(maxsize=len(FROST_FILES))
def load_frost_texture(index: int) -> Tensor:
    """Load a texture, uint8 (3, H, W), RGB. Raises InputError if it is not installed."""
    spec = find_spec('imagecorruptions')  # locates the folder; importing the package requires pkg_resources
    path = Path(spec.origin).parent / 'frost' / FROST_FILES[index] if spec and spec.origin else None
    if path is None or not path.is_file():
        raise InputError(f'No texture {FROST_FILES[index]} of the package imagecorruptions, which frost needs. Run '
                         'pip install --no-deps imagecorruptions, or omit frost.')
    return torch.from_numpy(np.array(Image.open(path).convert('RGB'))).permute(2, 0, 1).contiguous()


@lru_cache(maxsize=2 * len(FROST_FILES))
def fit_frost_texture(index: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Return a texture enlarged to 1.1 times the scale that covers `size`, uint8 (3, H', W').

    Interpolation is bicubic with OpenCV's coefficient -0.75, which is also torch's.
    """
    texture = load_frost_texture(index)
    factor = 1.1 * max(1.0, size[0] / texture.shape[1], size[1] / texture.shape[2])
    fitted = [int(np.ceil(length * factor)) for length in texture.shape[1:]]
    enlarged = F.interpolate(texture[None].float(), size=fitted, mode='bicubic', align_corners=False)
    return enlarged[0].round().clamp_(0, 255).to(torch.uint8).to(device)
