"""DeepViT and plain ViTs as detection backbones: a single stride inside, a feature pyramid outside."""

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from pit_downstream.backbones.deepvit import DeepVitTrunk, find_arch
from pit_downstream.backbones.multi_scale import EMBEDDINGS, DetectionBackbone, require_frozen, require_outputs
from pit_downstream.backbones.pyramid import SimpleFeaturePyramid, StagePyramid, require_strides
from pit_downstream.backbones.weights import DEEPVIT


class DeepViT(DetectionBackbone, DeepVitTrunk):
    """DeepViT as a detection backbone: images (B, 3, H, W), normalized -> tuple of (B, C_i, h_i, w_i).

    arch: '16', '24', '32', 's', 'l', 'l_384', or the plain 'vit_16', 'vit_24', 'vit_32', 'vit_s'.
    pyramid: construction of several strides from stride 16. 'stages' resamples the maps of several blocks, one per
    stride, and keeps their width. 'simple' builds all from one map, `pyramid_channels` wide (see pyramid.py).
    out_indices: blocks whose tokens are used, from 0. Later blocks are not built. The default is the last block for
    'simple', and evenly spaced blocks up to the last for 'stages'.
    out_channels, out_strides: of the returned maps. Strides are some of 4, 8, 16, 32. The side of a map is
    ceil(side / 16) times 16 / stride, rounded up.
    out_norm: a LayerNorm `norm{i}` after each block used.
    frozen_stages: -1 freezes nothing; k >= 0 freezes the stem, the embeddings and the first k blocks.
    norm_eval: batch norms of Re-attention and stem use their running statistics in training.
    consistent: keep the magnitude of features at every resolution (see ReAttention); False is the paper's formula.
    Other arguments are those of DeepVitTrunk. Loading converts any checkpoint of these sizes (DeepViT, ViT, DeiT; see
    weights.py), logs a report, and raises ValueError on a mismatch.
    """

    family = DEEPVIT
    added = ('norm', 'pyramid')

    def __init__(self, arch: str = 's', *, pyramid: str = 'stages', out_indices: Sequence[int] | None = None,
                 out_strides: Sequence[int] = (4, 8, 16, 32), pyramid_channels: int = 256, frozen_stages: int = -1,
                 out_norm: bool = True, norm_eval: bool = False, consistent: bool = True, **kwargs):
        width, depth = find_arch(arch).width, find_arch(arch).depth
        out_strides = tuple(out_strides)
        maps = 1 if pyramid == 'simple' else len(out_strides)
        if out_indices is None:
            out_indices = (depth * (i + 1) // maps - 1 for i in range(maps))
        out_indices = tuple(out_indices)
        _require_pyramid(pyramid, out_indices, out_strides)
        require_outputs(out_indices, depth)
        require_frozen(frozen_stages, depth)
        super().__init__(arch, depth=out_indices[-1] + 1, consistent=consistent, **kwargs)
        self.out_indices, self.out_strides, self.norm_eval = out_indices, out_strides, norm_eval
        for i in out_indices:
            self.add_module(f'norm{i}', nn.LayerNorm(width, eps=1e-6) if out_norm else nn.Identity())
        self.pyramid = (SimpleFeaturePyramid(width, out_strides, out_channels=pyramid_channels) if pyramid == 'simple'
                        else StagePyramid(width, out_strides))
        self.out_channels = self.pyramid.out_channels
        self._settle(frozen_stages)

    def _maps(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs, size = self.run_blocks(images, keep=self.out_indices)
        maps = self.pyramid([
            getattr(self, f'norm{i}')(tokens[:, 1:]).transpose(1, 2).unflatten(2, size).contiguous()
            for i, tokens in zip(self.out_indices, outputs)])
        return tuple(one.contiguous() for one in maps)  # norms and convolutions may return channels_last

    def train(self, mode: bool = True) -> 'DeepViT':
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def _frozen(self) -> Iterator[nn.Module | nn.Parameter]:
        yield from (self.pos_embed, self.cls_token, self.patch_embed, self.pos_drop)
        yield from self.blocks[:self.frozen_stages]

    def _layers(self) -> list[tuple[str, ...]]:
        return [EMBEDDINGS, *((f'blocks.{i}',) for i in range(len(self.blocks)))]


def _require_pyramid(pyramid: str, out_indices: tuple[int, ...], out_strides: tuple[int, ...]) -> None:
    if pyramid not in ('stages', 'simple'):
        raise ValueError(f"pyramid is 'stages' or 'simple', got {pyramid!r}")
    require_strides(out_strides)
    maps = 1 if pyramid == 'simple' else len(out_strides)
    if len(out_indices) != maps:
        raise ValueError(f'pyramid {pyramid!r} with {len(out_strides)} out_strides takes {maps} out_indices, '
                         f'got {out_indices}')
