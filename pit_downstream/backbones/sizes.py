"""Images of several sizes in one batch, each of which goes through a backbone as if it were alone.

Global attention sees whatever pads an image to the size of its mates. No mask keeps it out here: images of one size run
together, cut to that size, so that padding is neither seen nor paid for, at borders of convolutions and in the
resampled position embedding neither.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]  # height and width in pixels
Maps = tuple[Tensor, ...]


def set_image_sizes(images: Tensor, sizes: Sequence[Size]) -> None:
    """Note on `images` (B, C, H, W) itself how large each is when it is alone: it lies at the top left, padding around.

    The note is on this tensor alone: what is computed from it, a copy too, has none.
    Raises ValueError unless there is one size per image, from 1 x 1 to H x W.
    """
    full = tuple(images.shape[-2:])
    sizes = tuple((int(height), int(width)) for height, width in sizes)
    if len(sizes) != len(images) or any(not 1 <= side <= limit for size in sizes for side, limit in zip(size, full)):
        raise ValueError(f'expected a size up to {full} for each of {len(images)} images, got {sizes}')
    images.image_sizes = sizes


def sizes_of(images: Tensor) -> tuple[Size, ...] | None:
    """What `set_image_sizes` noted, if anything."""
    return getattr(images, 'image_sizes', None)


def forward_per_size(forward: Callable[[Tensor], Maps], images: Tensor, sizes: Sequence[Size]) -> Maps:
    """`forward`, from images (b, C, h, w) to maps (b, C_i, h_i, w_i), once for every size that occurs.

    images: (B, C, H, W). Returns (B, C_i, H_i, W_i), zero outside an image's own map. A batch of one size, without
    padding, is handed on as it is.
    """
    places: dict[Size, list[int]] = defaultdict(list)
    for place, size in enumerate(sizes):
        places[size].append(place)
    if list(places) == [tuple(images.shape[-2:])]:
        return forward(images)
    apart = [forward(images[rows, :, :height, :width]) for (height, width), rows in places.items()]
    order = [place for rows in places.values() for place in rows]
    back = sorted(range(len(order)), key=order.__getitem__)
    return tuple(_join(maps, back) for maps in zip(*apart))


def _join(maps: Sequence[Tensor], order: list[int]) -> Tensor:
    """Maps (b, C, h, w) of several sizes in one tensor, filled up with zeros on the right and below, then reordered."""
    height, width = (max(one.shape[axis] for one in maps) for axis in (2, 3))
    return torch.cat([F.pad(one, (0, width - one.shape[3], 0, height - one.shape[2])) for one in maps])[order]
