"""A custom corruption, and the imports of the package."""
import subprocess
import sys

import pytest
import torch

from pit_downstream.corruptions import corrupt_images, weather
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import ATTACKS, CORRUPTIONS
from tests.readme import ROOT, steps


@pytest.fixture
def registered(monkeypatch):
    for registry in (CORRUPTIONS, ATTACKS):
        monkeypatch.setattr(registry, '_entries', dict(registry._entries))


@pytest.mark.parametrize('page, lines', [('docs/custom.md', 10), ('README.md', 20)])
def test_corruption_of_documentation(registered, page, lines):
    code = next(step.text for step in steps((ROOT / page).read_text()) if 'CORRUPTIONS.register' in step.text)
    exec(code, {})
    assert len(code.strip().splitlines()) <= lines
    out = corrupt_images(torch.full((2, 3, 32, 40), 100, dtype=torch.uint8), 'dead_columns', 5)
    assert {0, 100} == set(out.unique().tolist()) and (out[0, :, 0] == 0).sum() == (out[0] == 0).sum() / 32


def test_missing_frost_textures_raise(monkeypatch):
    monkeypatch.setattr(weather, 'find_spec', lambda name: None)
    weather.load_frost_texture.cache_clear()
    weather.fit_frost_texture.cache_clear()
    with pytest.raises(InputError, match='No texture .* of the package imagecorruptions, which frost needs'):
        corrupt_images(torch.zeros(1, 3, 40, 40, dtype=torch.uint8), 'frost', 1)


def test_corruptions_need_only_torch_numpy_and_pillow():
    """Not mmdet, mmcv, mmengine or the imports of imagecorruptions, of which frost only reads files."""
    code = '''
import sys
for name in ("mmdet", "mmcv", "mmengine", "imagecorruptions", "cv2", "scipy", "skimage", "pkg_resources", "timm"):
    if name != "imagecorruptions":
        sys.modules[name] = None
import torch
from pit_downstream.corruptions import corrupt_images
from pit_downstream.utils.registry import CORRUPTIONS
images = torch.full((1, 3, 40, 48), 90, dtype=torch.uint8)
for name in CORRUPTIONS:
    corrupt_images(images, name, 2)
assert "imagecorruptions" not in sys.modules
print(len(CORRUPTIONS))'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == '20', done.stderr
