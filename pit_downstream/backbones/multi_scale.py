"""Base class of detection backbones: batches of several image sizes, checkpoint conversion, freezing."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from pit_downstream.backbones.layers import GridCache
from pit_downstream.backbones.weights import Family
from pit_downstream.utils.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

EMBEDDINGS = ('patch_embed', 'pos_embed', 'cls_token')  # layer 0 of every backbone
Size = tuple[int, int]  # height and width in pixels
Maps = tuple[Tensor, ...]

_log = logging.getLogger(__name__)


class DetectionBackbone(nn.Module):
    """Mixin placed before a trunk in the bases of a class, whose __init__ ends with `self._init_freezing(...)`.

    family: supported checkpoints. added: prefixes of detection-only parameters, which are missing in classifier
    checkpoints. Subclasses implement `compute_maps`, `_get_frozen` and `_get_layers`.
    """

    family: ClassVar[Family]
    added: ClassVar[tuple[str, ...]] = ('norm',)

    out_channels: tuple[int, ...]
    _grids: GridCache  # of the trunk

    def forward(self, images: Tensor, sizes: Sequence[Size] | None = None) -> Maps:
        """Return a map (B, C_i, h_i, w_i) for each of `out_channels`.

        Args:
            images: (B, 3, H, W), normalized.
            sizes: (height, width) of each image in pixels, without the padding on its right and bottom. The default is
                images without padding. Images of each size run separately (see `forward_per_size`), and are a separate
                batch for batch norms in training.
        """
        if sizes is None:
            return self.compute_maps(images)
        self._check_no_sync_batch_norm()
        return forward_per_size(self.compute_maps, images, sizes)

    def compute_maps(self, images: Tensor) -> Maps:
        """Compute the maps of images (B, 3, H, W) of one size."""
        raise NotImplementedError

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return (layer, number of layers) of `param_name`, which starts with `prefix` (mmpretrain's convention).

        Layer 0 is the stem with the embeddings, followed by one layer per block and one for detection-only parameters.
        """
        layers, name = self._get_layers(), param_name.removeprefix(prefix) + '.'
        matches = (i for i, starts in enumerate(layers) if any(name.startswith(f'{start}.') for start in starts))
        return next(matches, len(layers)), len(layers) + 1

    def train(self, mode: bool = True) -> 'Self':
        super().train(mode)
        if self.frozen_stages >= 0:
            for part in self._get_frozen():
                part.requires_grad_(False)
                if isinstance(part, nn.Module):
                    part.eval()
        return self

    def _init_freezing(self, frozen_stages: int) -> None:
        """Freeze the stages, and convert checkpoints when they are loaded. Call it at the end of __init__."""
        self.frozen_stages = frozen_stages
        self.register_load_state_dict_pre_hook(_convert_checkpoint)
        self.train()

    def _get_layers(self) -> list[tuple[str, ...]]:
        """Return the names of the parts of each layer, from the stem to the last block."""
        raise NotImplementedError

    def _get_frozen(self) -> Iterator[nn.Module | nn.Parameter]:
        """Yield the parts that `frozen_stages` freezes."""
        raise NotImplementedError

    def _log_report(self, text: str) -> None:
        _log.info(text)

    def _check_no_sync_batch_norm(self) -> None:
        """Raise InputError for SyncBatchNorm: ranks with different numbers of sizes would deadlock."""
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return
        if any(isinstance(module, nn.SyncBatchNorm) and module.training for module in self.modules()):
            raise InputError('expected batch norms of one process where each size of image runs alone, got '
                             "SyncBatchNorm; set norm_eval=True, or data_preprocessor.type='DetDataPreprocessor'")


def _convert_checkpoint(backbone: DetectionBackbone, state_dict: dict, prefix: str, *_) -> None:
    """Convert `state_dict` in place to the backbone's names and shapes. Pre-hook of load_state_dict."""
    given = {name: value for name, value in state_dict.items() if name.startswith(prefix)}
    target = backbone.state_dict()
    optional = [name for name in target if name.startswith(backbone.added)]
    depth = getattr(backbone.arch, 'depth', None)
    converted, report = backbone.family.convert(given, target, optional=optional, depth=depth)
    for name in given:
        del state_dict[name]
    state_dict.update({prefix + name: converted.get(name, value) for name, value in target.items()})
    backbone._log_report(f'{type(backbone).__name__} backbone: {report}')


def forward_per_size(forward: Callable[[Tensor], Maps], images: Tensor, sizes: Sequence[Size]) -> Maps:
    """Run `forward`, from images (b, C, h, w) to maps (b, C_i, h_i, w_i), once per distinct size.

    Global attention would attend to padding, and no mask prevents it here. Instead, images of one size run together,
    cropped to that size. Padding then affects neither attention nor convolution borders nor the resampled position
    embedding, and costs no computation.

    Args:
        images: (B, C, H, W). Each image is at the top left of the padded area.
        sizes: (height, width) of each image, from 1 x 1 to H x W.

    Returns:
        (B, C_i, H_i, W_i), zero outside an image's map. A batch of one size without padding is passed through
        unchanged.

    Raises:
        InputError: There is not one size for each image, or one exceeds the images.
    """
    full = tuple(images.shape[-2:])
    sizes = [(int(height), int(width)) for height, width in sizes]
    if len(sizes) != len(images) or any(not 1 <= side <= limit for size in sizes for side, limit in zip(size, full)):
        raise InputError(f'expected a size up to {full} for each of {len(images)} images, got {tuple(sizes)}')
    indices: dict[Size, list[int]] = defaultdict(list)
    for index, size in enumerate(sizes):
        indices[size].append(index)
    if list(indices) == [full]:
        return forward(images)
    parts = [forward(images[rows, :, :height, :width]) for (height, width), rows in indices.items()]
    order = [index for rows in indices.values() for index in rows]
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return tuple(_concatenate_maps(maps, inverse) for maps in zip(*parts))


def _concatenate_maps(maps: Sequence[Tensor], order: list[int]) -> Tensor:
    """Zero-pad maps (b, C, h, w) of several sizes on the right and bottom, concatenate and reorder them."""
    height, width = (max(grid.shape[axis] for grid in maps) for axis in (2, 3))
    return torch.cat([F.pad(grid, (0, width - grid.shape[3], 0, height - grid.shape[2])) for grid in maps])[order]


def check_out_indices(out_indices: tuple[int, ...], stages: int) -> None:
    """Raise InputError unless `out_indices` are some of range(stages) in rising order."""
    if not out_indices or list(out_indices) != sorted(set(out_indices) & set(range(stages))):
        known = str(tuple(range(stages))) if stages < 5 else f'0..{stages - 1}'
        raise InputError(f'out_indices are some of {known} in rising order, got {out_indices}')


def check_frozen_stages(frozen_stages: int, stages: int) -> None:
    """Raise InputError unless `frozen_stages` is -1..stages."""
    if frozen_stages not in range(-1, stages + 1):
        raise InputError(f'frozen_stages is -1..{stages}, got {frozen_stages}')
