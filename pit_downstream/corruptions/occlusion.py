"""Occlusion: part of an image is black.

The protocol of the PiT paper is not published in detail. Ours: an image is divided into 14 x 14 cells, as in PatchDrop
(Naseer et al. 2021, arXiv 2105.10497), and the given fraction of them is set to black. Occlusion of salient regions
depends on the model and is therefore an attack, `occlude_salient`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import CORRUPTIONS
from pit_downstream.corruptions.base import batched_severities

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng

SHAPES = ('random', 'center')


@dataclass(frozen=True)
class OcclusionStrength:
    """Occlusion strength. shape: 'random' cells or 'center'. share: of the image, in (0, 1]. cells: per side."""

    shape: str = 'random'
    share: float = .5
    cells: int = 14

    def __post_init__(self):
        if self.shape not in SHAPES:
            raise InputError(f'shape must be one of {", ".join(SHAPES)}, got {self.shape!r}.')
        if not isinstance(self.share, (int, float)) or not 0 < self.share <= 1:
            raise InputError(f'share must be above 0 and at most 1, got {self.share!r}. For clean images omit it.')
        if not isinstance(self.cells, int) or not 1 <= self.cells <= 32:
            raise InputError(f'cells must be in 1..32, got {self.cells!r}. Choose another number.')


@CORRUPTIONS.register('occlusion', group='occlusion', source='ours, see above', given=OcclusionStrength, raw=True,
                      strengths=tuple(OcclusionStrength(share=share) for share in (.1, .3, .5, .7, .9)))
@batched_severities
def apply_occlusion(images: Tensor, strengths: Sequence[OcclusionStrength], rng: 'Rng') -> Iterator[Tensor]:
    """Set a fraction of each image to black. images: uint8 (B, 3, H, W).

    Random cells are drawn once per image. The cells of a smaller share are a subset of those of a larger one.
    """
    ranks: dict[int, Tensor] = {}
    for strength in strengths:
        if strength.shape == 'random' and strength.cells not in ranks:
            drawn = rng.uniform((len(images), strength.cells ** 2))
            ranks[strength.cells] = drawn.argsort(1).argsort(1).view(len(images), 1, strength.cells, strength.cells)
        yield images * ~(_mask_center(images, strength.share) if strength.shape == 'center' else
                         expand_cells(ranks[strength.cells] < max(1, round(strength.share * strength.cells ** 2)),
                                      images))


def expand_cells(cells: Tensor, images: Tensor) -> Tensor:
    """Upscale cells (B, 1, n, n) to the image size, (B, 1, H, W), with borders at integer pixels."""
    rows, columns = (torch.arange(side, device=images.device) * cells.shape[-1] // side for side in images.shape[-2:])
    return cells[:, :, rows][:, :, :, columns]


def _mask_center(images: Tensor, share: float) -> Tensor:
    """Return a center mask with a `share` of the pixels and the image's aspect ratio, bool (1, 1, H, W)."""
    rows, columns = ((torch.arange(side, device=images.device) * 2 + 1 - side).abs() < round(share ** .5 * side)
                     for side in images.shape[-2:])
    return (rows[:, None] & columns)[None, None]
