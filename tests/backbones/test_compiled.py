"""What a compiler or an exporter makes of a backbone is the backbone, at every size."""

import sys
from dataclasses import replace

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from pit_downstream.backbones import DeepViT, PiT, deepvit, pit
from pit_downstream.backbones.vit import VitArch
from pit_downstream.backbones.export import compare_with_onnxruntime, export_onnx
from tests.tolerances import SHARES, assert_near

# A block in each of two stages; plain attention, then Re-attention, and pyramids that grow and shrink maps.
BACKBONES = {
    'PiT': lambda: PiT('tiny', img_size=64, out_indices=(0, 1)),
    'DeepViT': lambda: DeepViT('tiny', img_size=64, out_indices=(0, 1), out_strides=(8, 32)),
}


@pytest.fixture(params=['PiT', pytest.param('DeepViT', marks=pytest.mark.slow)])
def backbone(request, monkeypatch):
    monkeypatch.setitem(pit.ARCHS, 'tiny', replace(pit.ARCHS['ti'], depths=(1, 1, 1)))
    monkeypatch.setitem(deepvit.ARCHS, 'tiny', VitArch(48, 4, 2, plain=1, conv_stem=True))
    torch.manual_seed(0)
    built = BACKBONES[request.param]().eval()
    for buffer in built.buffers():  # else the batch norm of Re-attention would do nothing
        if buffer.dtype.is_floating_point:
            buffer.uniform_(0.5, 1.5)
    return built


@torch.no_grad()
def test_compiled_is_eager_at_every_size(backbone):
    """By Dynamo's own graphs, without inductor's minutes of C++. One graph of PiT serves every size; the chunks in
    which Re-attention goes by are as many as its size asks for, and so are DeepViT's graphs."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend('eager')
    compiled = torch.compile(backbone, backend=counter, dynamic=True)
    for height, width in ((96, 128), (128, 224)):
        images = torch.randn(2, 3, height, width)
        for mine, own in zip(compiled(images), backbone(images), strict=True):
            assert_near(mine, own, 'block')
    assert counter.frame_count == (1 if isinstance(backbone, PiT) else 2)


def test_onnxruntime_gives_the_same_at_every_size(backbone, tmp_path):
    pytest.importorskip('onnxscript', reason="exporting needs onnxscript: pip install -e '.[export]'")
    pytest.importorskip('onnxruntime', reason="comparing needs onnxruntime: pip install -e '.[export]'")
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    export_onnx(backbone, tmp_path / 'backbone.onnx')
    found = compare_with_onnxruntime(backbone, tmp_path / 'backbone.onnx', [(64, 64), (96, 160), (224, 128)])
    assert len(found) == 3 and max(found.values()) <= SHARES[torch.float32]['network'], found
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    replaced = set().union(*(vars(module) for module in backbone.modules()))
    assert not {'attend', 'compute_maps'} & replaced


def test_reports_missing_packages(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ImportError, match=r"onnxscript.*pip install 'pit_downstream\[export\]'"):
        export_onnx(None, tmp_path / 'backbone.onnx')
    assert compare_with_onnxruntime(None, tmp_path / 'backbone.onnx', [(64, 64)]) == {}
