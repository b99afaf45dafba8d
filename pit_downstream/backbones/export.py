"""ONNX export of a detection backbone with dynamic batch size, height and width."""

import contextlib
import copy
import importlib.util
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import MethodType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pit_downstream.backbones.deepvit import ReAttention
from pit_downstream.backbones.layers import GridCache
from pit_downstream.backbones.multi_scale import DetectionBackbone
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.extras import require_extra
from pit_downstream.utils.path_checks import replace_atomically

OPSETS = range(18, 24)  # supported by torch 2.14's exporter and onnxruntime
OPSET = 20  # has Gelu, and Resize and LayerNormalization with torch's semantics
MULTIPLE = 32  # sides are multiples of it, the padding of FPN detectors


def export_onnx(backbone: DetectionBackbone, path: str | Path, *, opset: int = OPSET) -> None:
    """Export `backbone`, in evaluation mode, to `path`: 'images' (B, 3, H, W), normalized -> 'map0', 'map1' ...

    B, H and W are dynamic, H and W multiples of 32. Re-attention is exported by its formula, whose maps take
    B x heads x N x N numbers at run time. A position embedding that shrinks is not antialiased, so for sides smaller
    than the training images the results differ slightly from the module's.
    Raises MissingExtraError without the package onnxscript, InputError for an opset that torch does not write.
    """
    require_export(opset)
    names = [f'map{i}' for i in range(len(backbone.out_channels))]
    rows, columns = (MULTIPLE * torch.export.Dim(name, min=1, max=256) for name in ('rows', 'columns'))
    sides = {0: torch.export.Dim('batch', min=1, max=4096), 2: rows, 3: columns}
    images = torch.zeros(2, 3, 3 * MULTIPLE, 4 * MULTIPLE)
    with replace_atomically(path) as new, _suppress_warnings(), torch.no_grad():
        torch.onnx.export(_Maps(make_exportable(backbone)), (images,), str(new), input_names=['images'],
                          output_names=names, dynamic_shapes=(sides,), opset_version=opset, dynamo=True,
                          external_data=False, verbose=False)


def compare_with_onnxruntime(backbone: DetectionBackbone, path: str | Path, sizes: Iterable[tuple[int, int]]
                             ) -> dict[tuple[int, int], float]:
    """Return per size the largest difference of onnxruntime's maps from the backbone's, relative to the largest value.

    Uses one image of normal noise per size. Empty without the package onnxruntime.
    """
    if importlib.util.find_spec('onnxruntime') is None:
        return {}
    import onnxruntime
    session, backbone = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider']), backbone.eval()
    differences: dict[tuple[int, int], float] = {}
    for height, width in sizes:
        images = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            maps = backbone(images)
        outputs = map(torch.from_numpy, session.run(None, {'images': images.numpy()}))
        differences[height, width] = max(((output - expected).abs().max() / expected.abs().max()).item()
                                         for output, expected in zip(outputs, maps, strict=True))
    return differences


class _Maps(nn.Module):
    """Module that returns only the maps of images of one size."""

    def __init__(self, backbone: DetectionBackbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.backbone.compute_maps(images)


def make_exportable(backbone: DetectionBackbone) -> DetectionBackbone:
    """Return a copy in evaluation mode without operations that depend on Python numbers: caches and chunks."""
    backbone = copy.deepcopy(backbone).cpu().eval().requires_grad_(False)
    backbone._grids = _Resampling()
    for module in backbone.modules():
        if isinstance(module, ReAttention):
            module.attend = MethodType(  # type: ignore[method-assign]  # of this instance only
                _attend_by_formula, module)
    return backbone


class _Resampling(GridCache):
    """Replacement of GridCache that always resamples. A grid of the right size stays unchanged."""

    def get(self, grid: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(grid, size=size, mode='bicubic', align_corners=False)


def _attend_by_formula(attention: ReAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend through the whole map (B, H, N, N). q, k, v: (B, H, N, d). Returns (B, H, N, d)."""
    return attention.compute_maps(q, k)['reattention'] @ v


@contextlib.contextmanager
def _suppress_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


def require_export(opset: int) -> None:
    """Raise the errors of `export_onnx` before any work."""
    require_extra('export')
    if opset not in OPSETS:
        raise InputError(f'expected an opset in {OPSETS[0]}..{OPSETS[-1]}, got {opset}; {OPSET} is the usual one')
