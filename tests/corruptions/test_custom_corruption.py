"""A custom corruption, and the imports of the package."""
import subprocess
import sys

import pytest
import torch

from pit_downstream.utils.registry import CORRUPTIONS
from pit_downstream.corruptions import corrupt_images, weather


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(CORRUPTIONS, '_entries', dict(CORRUPTIONS._entries))


def test_custom_corruption_of_the_readme(registered):
    from pathlib import Path
    text = (Path(__file__).parents[2] / 'README.md').read_text()
    code = next(block.split('```')[0] for block in text.split('```python\n') if 'CORRUPTIONS.register' in block)
    names = {'images': torch.full((2, 3, 32, 40), 100, dtype=torch.uint8)}
    exec(code, names)
    assert len(code.strip().splitlines()) <= 10
    out = corrupt_images(names['images'], 'dead_columns', 5)
    assert {0, 100} == set(out.unique().tolist()) and (out[0, :, 0] == 0).sum() == (out[0] == 0).sum() / 32


def test_missing_frost_textures_raise(monkeypatch):
    monkeypatch.setattr(weather, 'find_spec', lambda name: None)
    weather.load_frost_texture.cache_clear()
    weather.fit_frost_texture.cache_clear()
    with pytest.raises(LookupError, match='No texture .* of the package imagecorruptions, which frost needs'):
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
