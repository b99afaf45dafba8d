"""Drops of water and mud, from a smooth random layer of liquid."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pit_downstream.corruptions.edges import STRAIGHT, box_sums, canny, distances, equalised
from pit_downstream.corruptions.kernels import gaussian_blurred

WATER = (175 / 255, 238 / 255, 238 / 255)  # pale turquoise
MUD = (63 / 255, 42 / 255, 20 / 255)  # brown
THIN = .8  # mud below this is removed
RELIEF = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))  # emboss kernel: light from one side


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


def watered(images: Tensor, liquid: Tensor, drops: Drops) -> Tensor:
    """Add water drops. images: (B, 3, H, W) in [0, 1]. liquid: float64 (B, H, W)."""
    liquid = torch.where(liquid < drops.threshold, 0, liquid * 255).clamp_(0, 255).int()
    layer = (liquid * relief(liquid)).float()
    peak = layer.amax((1, 2), keepdim=True)
    layer = layer * (drops.strength / torch.where(peak == 0, 1, peak))
    return images + layer[:, None] * torch.tensor(WATER, device=images.device).view(3, 1, 1)


def relief(liquid: Tensor) -> Tensor:
    """Return the lightness of the drops, integers in 0..255. liquid: int32 (B, H, W) in 0..255."""
    depth = distances(canny(liquid, 50, 150))
    depth = (box_sums(depth) / STRAIGHT * (1 / 9)).float().int()
    depth = equalised(depth)
    kernel = torch.tensor(RELIEF, dtype=torch.float32, device=liquid.device)[None, None]
    framed = F.pad(depth[:, None].float(), (1, 1, 1, 1), mode='reflect')
    embossed = F.conv2d(framed, kernel)[:, 0].clamp_(0, 255)
    return torch.round(box_sums(embossed) / 9)


def muddied(images: Tensor, liquid: Tensor, drops: Drops) -> Tensor:
    """Cover the images with mud above a minimum thickness. liquid: (B, H, W)."""
    assert drops.mud is not None
    mud = gaussian_blurred((liquid > drops.threshold).float()[:, None], (drops.mud, drops.mud))
    mud = torch.where(mud < THIN, 0, mud)
    return images * (1 - mud) + mud * torch.tensor(MUD, device=images.device).view(3, 1, 1)
