"""Batches of images of several sizes, where each image passes through a backbone without its padding.

Global attention would attend to padding, and no mask prevents it here. Instead, images of one size run together,
cropped to that size. Padding then affects neither attention nor convolution borders nor the resampled position
embedding, and costs no computation.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]  # height and width in pixels
Maps = tuple[Tensor, ...]


def set_image_sizes(images: Tensor, sizes: Sequence[Size]) -> None:
    """Attach the unpadded size of each image to `images` (B, C, H, W). Images are at the top left of the padded area.

    The sizes are attached to this tensor only, not to copies or results of operations on it.
    Raises ValueError unless there is one size per image, from 1 x 1 to H x W.
    """
    full = tuple(images.shape[-2:])
    sizes = tuple((int(height), int(width)) for height, width in sizes)
    if len(sizes) != len(images) or any(not 1 <= side <= limit for size in sizes for side, limit in zip(size, full)):
        raise ValueError(f'expected a size up to {full} for each of {len(images)} images, got {sizes}')
    images.image_sizes = sizes


def sizes_of(images: Tensor) -> tuple[Size, ...] | None:
    """Return the sizes attached by `set_image_sizes`, or None."""
    return getattr(images, 'image_sizes', None)


def forward_per_size(forward: Callable[[Tensor], Maps], images: Tensor, sizes: Sequence[Size]) -> Maps:
    """Run `forward`, from images (b, C, h, w) to maps (b, C_i, h_i, w_i), once per distinct size.

    images: (B, C, H, W). Returns (B, C_i, H_i, W_i), zero outside an image's map. A batch of one size without padding
    is passed through unchanged.
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
    """Zero-pad maps (b, C, h, w) of several sizes on the right and bottom, concatenate and reorder them."""
    height, width = (max(one.shape[axis] for one in maps) for axis in (2, 3))
    return torch.cat([F.pad(one, (0, width - one.shape[3], 0, height - one.shape[2])) for one in maps])[order]
