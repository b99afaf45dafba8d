"""Threat model: the allowed distance from an image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from pit_downstream.utils.errors import InputError

if TYPE_CHECKING:
    from pit_downstream.utils.protocols import Rng

NORMS = ('Linf', 'L2', 'L1')
SPARSE = 0.01  # share of the values that a steepest step under L1 changes: Tramer & Boneh 2019, SLIDE, quantile 0.99
TINY = 1e-12  # norms below it count as zero
SMALLEST = torch.finfo(torch.float32).tiny  # gradients of a confident model are this small; their squares are 0
SLACK = 1e-5  # relative rounding error of an L1 or L2 norm of 150528 float32 values


@dataclass(frozen=True)
class ThreatModel:
    """Ball around every image. norm: 'Linf', 'L2' or 'L1'. epsilon: radius on the scale of pixels in [0, 1].

    A perturbation delta is (B, 3, H, W). Its size is one number per image.
    """

    norm: str
    epsilon: float

    def __post_init__(self):
        if self.norm not in NORMS:
            raise InputError(f'norm is one of {", ".join(NORMS)}, got {self.norm!r}')
        if not 0 <= self.epsilon < float('inf'):
            raise InputError('epsilon is 0 or more on the scale of pixels in [0, 1], such as 8/255, got '
                             f'{self.epsilon}')
        if self.norm == 'Linf' and self.epsilon > 1:
            raise InputError(f'epsilon is 0..1 under Linf, got {self.epsilon}; it is on the scale of pixels in [0, 1]: '
                             f'write {self.epsilon:g}/255')

    def get_size(self, delta: Tensor) -> Tensor:
        """Compute the norm of each perturbation, (B,)."""
        order = {'Linf': float('inf'), 'L2': 2, 'L1': 1}[self.norm]
        return torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)

    def project(self, delta: Tensor) -> Tensor:
        """Return the nearest perturbation (Euclidean) within the ball."""
        if self.norm == 'Linf':
            return delta.clamp(-self.epsilon, self.epsilon)
        if self.norm == 'L2':
            return delta * _expand(self.epsilon / self.get_size(delta).clamp_min(max(self.epsilon, TINY)))
        return _project_l1(delta, self.epsilon)

    def project_images(self, images: Tensor, adversarial: Tensor, valid: Tensor | None = None) -> Tensor:
        """Project `adversarial` into the ball around `images` and into [0, 1], and restore the padding.

        valid: bool (B, 1, H, W), False on padding. Clipping and masking shrink every component, so the result stays in
        the ball. Images already inside are returned bit for bit, so their verdict stays valid.
        """
        if self.norm == 'Linf':
            near = adversarial.clamp(images - self.epsilon, images + self.epsilon)
        else:
            delta = adversarial - images
            near = torch.where(_expand(self.is_within(delta)), adversarial, images + self.project(delta))
        if valid is not None:
            near = torch.where(valid, near, images)
        return near.clamp(0, 1)

    def is_within(self, delta: Tensor) -> Tensor:
        """Return bool (B,): whether each perturbation is within the ball, up to the rounding of its norm."""
        return self.get_size(delta) <= self.epsilon * (1 + SLACK)

    def get_steepest(self, gradient: Tensor) -> Tensor:
        """Return the direction of steepest ascent of norm 1 for a gradient (B, 3, H, W).

        Under L1 this would be a single value. Instead the top SPARSE of the values share the step evenly, as in SLIDE.
        """
        if self.norm == 'Linf':
            return gradient.sign()
        if self.norm == 'L2':
            scaled = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(SMALLEST)
            return scaled / _expand(self.get_size(scaled).clamp_min(TINY))
        flat = gradient.flatten(1)
        count = max(1, round(SPARSE * flat.shape[1]))
        lowest = flat.abs().topk(count, dim=1).values[:, -1:]
        steps = flat.sign() * (flat.abs() >= lowest)
        return (steps / steps.abs().sum(1, keepdim=True).clamp_min(1)).view_as(gradient)

    def draw(self, shape: Sequence[int], rng: 'Rng') -> Tensor:
        """Draw perturbations uniformly from the ball, (B, 3, H, W)."""
        if self.norm == 'Linf':
            return (2 * rng.uniform(shape) - 1) * self.epsilon
        direction = rng.normal(shape)
        if self.norm == 'L1':  # exponential lengths with random signs are uniform on the L1 sphere after normalization
            direction = direction.sign() * -torch.log1p(-rng.uniform(shape))
        radius = self.epsilon * rng.uniform((shape[0], 1)).flatten() ** (1 / math.prod(shape[1:]))
        return direction * _expand(radius / self.get_size(direction).clamp_min(TINY))


@dataclass(frozen=True)
class Patches(ThreatModel):
    """Threat model of a few square cells with arbitrary pixels, such as the patches of a ViT.

    The cells form a grid from the upper left corner. Those at the right and lower edge may be cut off. The size of a
    perturbation is the number of cells it changes. count: maximum number of cells, the epsilon. side: of a cell, in
    pixels.
    """

    norm: str = field(default='patch', init=False)
    epsilon: float = field(init=False)
    count: int = 1
    side: int = 16

    def __post_init__(self):
        for name, value in (('count', self.count), ('side', self.side)):
            if type(value) is not int or value < 1:
                raise InputError(f'{name} of a patch is a whole number from 1, got {value!r}')
        object.__setattr__(self, 'epsilon', float(self.count))

    def get_size(self, delta: Tensor) -> Tensor:
        return (self.sum_cells(delta.abs()) > 0).flatten(1).sum(1).to(delta.dtype)

    def project(self, delta: Tensor) -> Tensor:
        return delta * self.mask(self.select_cells(self.sum_cells(delta.square())), delta.shape)

    def get_steepest(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def draw(self, shape: Sequence[int], rng: 'Rng') -> Tensor:
        """Draw values in -1..1 in random cells."""
        grid = (-(-shape[2] // self.side), -(-shape[3] // self.side))
        cells = self.select_cells(rng.uniform((shape[0], *grid)))
        return (2 * rng.uniform(shape) - 1) * self.mask(cells, shape)

    def sum_cells(self, values: Tensor) -> Tensor:
        """Sum values (B, C, H, W) over every cell, (B, h, w)."""
        height, width = values.shape[2:]
        padded = F.pad(values.sum(1, keepdim=True), (0, -width % self.side, 0, -height % self.side))
        return F.avg_pool2d(padded, self.side, divisor_override=1).squeeze(1)

    def select_cells(self, scores: Tensor) -> Tensor:
        """Select the `count` cells with the highest scores (B, h, w), as bool (B, h, w)."""
        flat = scores.flatten(1)
        best = flat.topk(min(self.count, flat.shape[1]), dim=1).indices
        return torch.zeros_like(flat, dtype=torch.bool).scatter(1, best, True).view_as(scores)

    def mask(self, cells: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the pixels of the cells (B, h, w), as bool (B, 1, H, W)."""
        wide = cells.repeat_interleave(self.side, 1).repeat_interleave(self.side, 2)
        return wide[:, None, :shape[2], :shape[3]]


def check_patches(threat: ThreatModel) -> Patches:
    """Cast the threat model of an attack whose only norm is 'patch'."""
    assert isinstance(threat, Patches)
    return threat


def _expand(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _project_l1(delta: Tensor, epsilon: float) -> Tensor:
    """Apply soft thresholding with the threshold that leaves a sum of epsilon (Duchi et al. 2008)."""
    lengths = delta.flatten(1).abs()
    ordered = lengths.sort(dim=1, descending=True).values
    excess = (ordered.double().cumsum(1) - epsilon) / torch.arange(1, lengths.shape[1] + 1, device=delta.device)
    kept = (ordered > excess).sum(1, keepdim=True).clamp_min(1)
    threshold = excess.gather(1, kept - 1).clamp_min(0).to(delta.dtype)  # 0: already within the ball
    return (lengths - threshold).clamp_min(0).view_as(delta) * delta.sign()


def choose(rows: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Select per image `yes` where rows (B,) is True, else `no`, both (B, 3, H, W)."""
    return torch.where(rows[:, None, None, None], yes, no)
