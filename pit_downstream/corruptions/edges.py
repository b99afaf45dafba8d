"""Canny edges, distance transform and histogram equalization with OpenCV's results, without OpenCV.

Gray images are int32 (B, H, W) in 0..255.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

TANGENT = 13573  # tan(22.5 degrees) times 2^15, as in OpenCV's Canny
STRAIGHT, DIAGONAL, KNIGHT = 65536, 91750, 143976  # 1, 1.4 and 2.1969 times 2^16: DIST_L2 with a 5 x 5 mask
FARTHEST = 20  # largest distance in pixels


def detect_edges(gray: Tensor, low: int, high: int) -> Tensor:
    """Compute Canny edges with 3 x 3 Sobel derivatives and the norm |dx| + |dy|. Returns bool (B, H, W)."""
    framed = F.pad(gray[:, None].float(), (1, 1, 1, 1), mode='replicate')[:, 0].int()
    down = framed[:, :-2] + 2 * framed[:, 1:-1] + framed[:, 2:]
    across = framed[..., :-2] + 2 * framed[..., 1:-1] + framed[..., 2:]
    dx, dy = down[..., 2:] - down[..., :-2], across[:, 2:] - across[:, :-2]
    size = dx.abs() + dy.abs()
    ridge = (size > low) & suppress_non_maxima(size, dx, dy)
    return grow_connected(ridge & (size > high), ridge)


def suppress_non_maxima(size: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Suppress non-maxima: return where `size` is a maximum along the horizontal, vertical or diagonal gradient."""
    around = F.pad(size, (1, 1, 1, 1))
    height, width = size.shape[-2:]

    def get_neighbor(down: int, right: int) -> Tensor:
        return around[:, 1 + down:1 + down + height, 1 + right:1 + right + width]

    flat, steep = dx.abs() * TANGENT, dy.abs() << 15
    beside = (size > get_neighbor(0, -1)) & (size >= get_neighbor(0, 1))
    above = (size > get_neighbor(-1, 0)) & (size >= get_neighbor(1, 0))
    falling = (size > get_neighbor(-1, -1)) & (size > get_neighbor(1, 1))
    rising = (size > get_neighbor(-1, 1)) & (size > get_neighbor(1, -1))
    diagonal = torch.where((dx ^ dy) < 0, rising, falling)
    return torch.where(steep < flat, beside, torch.where(steep > flat + (dx.abs() << 16), above, diagonal))


def grow_connected(seeds: Tensor, allowed: Tensor) -> Tensor:
    """Return the pixels of `allowed` that are 8-connected to a seed within `allowed`, bool (B, H, W)."""
    seeds, allowed = seeds.to(torch.uint8), allowed.to(torch.uint8)
    while True:
        framed = F.pad(seeds, (1, 1, 1, 1))
        rows = framed[:, :-2] | framed[:, 1:-1] | framed[:, 2:]
        grown = (rows[..., :-2] | rows[..., 1:-1] | rows[..., 2:]) & allowed
        if torch.equal(grown, seeds):
            return grown.bool()
        seeds = grown


@lru_cache(maxsize=4)
def compute_chamfer_lengths(device: torch.device) -> Tensor:
    """Return chamfer distances by row and column offset, times 2^16, clipped at 20 pixels: int32 (21, 22).

    Paths consist of straight, diagonal and knight's moves.
    """
    across = torch.arange(FARTHEST + 2)
    down = torch.arange(FARTHEST + 1)[:, None]
    long, short = torch.maximum(across, down), torch.minimum(across, down)
    length = torch.where(2 * short <= long, (long - 2 * short) * STRAIGHT + short * KNIGHT,
                         (long - short) * KNIGHT + (2 * short - long) * DIAGONAL)
    return length.clamp_max(FARTHEST * STRAIGHT).int().to(device)


def compute_distances(edges: Tensor) -> Tensor:
    """Compute the chamfer distance to the nearest edge, at most 20 pixels, times 2^16. edges: bool (B, H, W).

    The nearest edge within each row is computed first, then the minimum over the rows above and below. Returns int32.
    """
    height, width = edges.shape[-2:]
    columns = torch.arange(width, dtype=torch.int32, device=edges.device)
    left = torch.where(edges, columns, -FARTHEST - 1).cummax(-1).values
    right = torch.where(edges, columns, width + FARTHEST).flip(-1).cummin(-1).values.flip(-1)
    nearest = torch.minimum(columns - left, right - columns).clamp_max_(FARTHEST + 1).int()
    framed = F.pad(nearest, (0, 0, FARTHEST, FARTHEST), value=FARTHEST + 1)
    lengths = compute_chamfer_lengths(edges.device)
    best = lengths[0].index_select(0, nearest.flatten())
    for down in range(1, FARTHEST + 1):
        above = framed[:, FARTHEST - down:FARTHEST - down + height]
        below = framed[:, FARTHEST + down:FARTHEST + down + height]
        ways = lengths[down].index_select(0, torch.minimum(above, below).flatten())
        torch.minimum(best, ways, out=best)
    return best.view_as(nearest)


def sum_boxes(values: Tensor) -> Tensor:
    """Sum over 3 x 3 pixels, reflected at the border (cb|abc). values: integers (B, H, W). Returns float64."""
    framed = F.pad(values[:, None].double(), (1, 1, 1, 1), mode='reflect')
    rows = framed[..., :-2, :] + framed[..., 1:-1, :] + framed[..., 2:, :]
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:])[:, 0]


def equalize_histograms(gray: Tensor) -> Tensor:
    """Equalize the histogram of each image, int32 (B, H, W). Images with a single value are unchanged."""
    flat = gray.flatten(1).long()
    counts = torch.zeros(len(flat), 256, dtype=torch.int64, device=gray.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat))
    first = (counts > 0).int().argmax(1, keepdim=True)
    lowest, total = counts.gather(1, first), flat.shape[1]
    scale = 255 / (total - lowest).clamp_min(1).float()
    levels = torch.round((counts.cumsum(1) - lowest).clamp_min(0).float() * scale).long()
    levels = torch.where(lowest == total, first, levels)
    return levels.gather(1, flat).view_as(gray).int()
