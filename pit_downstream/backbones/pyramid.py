"""Feature pyramids with strides 4 to 32 from maps of stride 16, for transformers with a constant grid."""

from collections.abc import Sequence

from timm.layers import LayerNorm2d
from torch import Tensor, nn

STRIDES = (4, 8, 16, 32)


class StagePyramid(nn.Module):
    """Pyramid from maps of several depths, one per stride, of unchanged width.

    maps: one (B, D, h, w) of stride 16 per stride. Returns (B, D, h 16 / stride, w 16 / stride) each. Half of an odd
    side is rounded up. Follows the detectors of BEiT and XCiT (El-Nouby et al. 2021, 2106.09681).
    """

    def __init__(self, width: int, strides: Sequence[int]):
        super().__init__()
        self.out_channels = (width,) * len(strides)
        self.levels = nn.ModuleList(_resampling(width, stride, taper=1)[0] for stride in strides)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(level(one) for level, one in zip(self.levels, maps, strict=True))


class SimpleFeaturePyramid(nn.Module):
    """Pyramid from the last map only, with `out_channels` channels per stride (Li et al. 2022, ViTDet, 2203.16527).

    maps: one (B, D, h, w) of stride 16. Returns (B, out_channels, h 16 / stride, w 16 / stride) per stride. Half of an
    odd side is rounded up.
    """

    def __init__(self, width: int, strides: Sequence[int], *, out_channels: int = 256):
        super().__init__()
        self.out_channels = (out_channels,) * len(strides)
        self.levels = nn.ModuleList(self._level(width, stride, out_channels) for stride in strides)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        [last] = maps
        return tuple(level(last) for level in self.levels)

    @staticmethod
    def _level(width: int, stride: int, out_channels: int) -> nn.Sequential:
        resampling, width = _resampling(width, stride, taper=2)
        return nn.Sequential(
            resampling,
            nn.Conv2d(width, out_channels, 1, bias=False), LayerNorm2d(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), LayerNorm2d(out_channels))


def _resampling(width: int, stride: int, *, taper: int) -> tuple[nn.Module, int]:
    """Return a module from stride 16 to `stride` and its output width. Each doubling divides the width by `taper`."""
    if stride == 32:
        return nn.MaxPool2d(2, 2, ceil_mode=True), width
    doublings = {16: 0, 8: 1, 4: 2}[stride]
    layers = []
    for i in range(doublings):
        if i:
            layers += [LayerNorm2d(width), nn.GELU()]
        layers.append(nn.ConvTranspose2d(width, width // taper, 2, 2))
        width //= taper
    return nn.Sequential(*layers), width


def require_strides(strides: tuple[int, ...]) -> None:
    """Raise ValueError unless `strides` are some of 4, 8, 16, 32 in rising order."""
    if not strides or list(strides) != sorted(set(strides) & set(STRIDES)):
        raise ValueError(f'out_strides are some of {STRIDES} in rising order, got {strides}')
