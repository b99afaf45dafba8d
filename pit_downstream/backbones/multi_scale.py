"""Base class of detection backbones: images of several sizes, checkpoint conversion, freezing."""

from collections.abc import Iterator
from typing import ClassVar

from mmengine import dist
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from pit_downstream.backbones.sizes import forward_per_size, sizes_of
from pit_downstream.backbones.weights import Family

EMBEDDINGS = ('patch_embed', 'pos_embed', 'cls_token')  # layer 0 of every backbone


class DetectionBackbone(BaseModule):
    """Mixin placed before a trunk in the bases of a class, whose __init__ ends with `self._settle(frozen_stages)`.

    `_maps` computes the maps of images of one size. If the data preprocessor has set several sizes (sizes.py), each
    size runs separately, and is a separate batch for batch norms in training.
    family: supported checkpoints. added: prefixes of detection-only parameters, which are missing in classifier
    checkpoints. `_frozen` returns the parts that frozen_stages freezes, `_layers` the parameters of each layer.
    """

    family: ClassVar[Family]
    added: ClassVar[tuple[str, ...]] = ('norm',)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return a map (B, C_i, h_i, w_i) for each of `out_channels`. images: (B, 3, H, W), normalized."""
        sizes = sizes_of(images)
        if sizes is None:
            return self._maps(images)
        self._check_no_sync_batch_norm()
        return forward_per_size(self._maps, images, sizes)

    def _maps(self, images: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def init_weights(self) -> None:
        """Load `init_cfg`'s whole checkpoint, so that averaged weights take precedence over raw ones."""
        pretrained = isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained'
        if pretrained and not self.is_init:
            self.load_state_dict(CheckpointLoader.load_checkpoint(self.init_cfg['checkpoint'], map_location='cpu'))
            self.is_init = True
        else:
            super().init_weights()

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return (layer, number of layers) of `param_name`, which starts with `prefix` (mmpretrain's convention).

        Layer 0 is the stem with the embeddings, followed by one layer per block and one for detection-only parameters.
        """
        layers, name = self._layers(), param_name.removeprefix(prefix) + '.'
        found = (i for i, starts in enumerate(layers) if any(name.startswith(f'{start}.') for start in starts))
        return next(found, len(layers)), len(layers) + 1

    def train(self, mode: bool = True) -> 'DetectionBackbone':
        super().train(mode)
        self._freeze()
        return self

    def _check_no_sync_batch_norm(self) -> None:
        """Raise ValueError for SyncBatchNorm: ranks with different numbers of sizes would deadlock."""
        synced = (norm for norm in self.modules() if isinstance(norm, nn.SyncBatchNorm) and norm.training)
        if next(synced, None) is not None and dist.get_world_size() > 1:
            raise ValueError('expected batch norms of one process where each size of image runs alone, got '
                             "SyncBatchNorm; set norm_eval=True, or data_preprocessor.type='DetDataPreprocessor'")

    def _settle(self, frozen_stages: int) -> None:
        self.frozen_stages = frozen_stages
        self.register_load_state_dict_pre_hook(_adopt_checkpoint)
        self.train()  # freeze from the start

    def _layers(self) -> list[tuple[str, ...]]:
        """Return the names of the parts of each layer, from the stem to the last block."""
        raise NotImplementedError

    def _frozen(self) -> Iterator[nn.Module | nn.Parameter]:
        raise NotImplementedError

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        for part in self._frozen():
            part.requires_grad_(False)
            if isinstance(part, nn.Module):
                part.eval()


def _adopt_checkpoint(backbone: DetectionBackbone, state_dict: dict, prefix: str, *_) -> None:
    """Convert `state_dict` in place to the backbone's names and shapes. Pre-hook of load_state_dict."""
    here = {name: value for name, value in state_dict.items() if name.startswith(prefix)}
    own = backbone.state_dict()
    optional = [name for name in own if name.startswith(backbone.added)]
    depth = getattr(backbone.arch, 'depth', None)
    converted, report = backbone.family.convert(here, own, optional=optional, depth=depth)
    for name in here:
        del state_dict[name]
    state_dict.update({prefix + name: converted.get(name, value) for name, value in own.items()})
    print_log(f'{type(backbone).__name__} backbone: {report}', logger='current')


def require_outputs(out_indices: tuple[int, ...], stages: int) -> None:
    """Raise ValueError unless `out_indices` are some of range(stages) in rising order."""
    if not out_indices or list(out_indices) != sorted(set(out_indices) & set(range(stages))):
        known = str(tuple(range(stages))) if stages < 5 else f'0..{stages - 1}'
        raise ValueError(f'out_indices are some of {known} in rising order, got {out_indices}')


def require_frozen(frozen_stages: int, stages: int) -> None:
    """Raise ValueError unless `frozen_stages` is -1..stages."""
    if frozen_stages not in range(-1, stages + 1):
        raise ValueError(f'frozen_stages is -1..{stages}, got {frozen_stages}')
