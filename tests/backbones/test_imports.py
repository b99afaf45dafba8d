"""Backbones need torch and timm, but neither mmengine nor mmdet nor mmcv."""

import subprocess
import sys

SCRIPT = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('mmengine', 'mmcv', 'mmdet'):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocker())
import timm, torch
from pit_downstream import backbones
from pit_downstream.backbones import export
images = torch.zeros(1, 3, 64, 64)
with torch.no_grad():
    logits = timm.create_model('pit_s', num_classes=7).eval()(images)
    maps = backbones.PiT('ti', out_indices=(0, 2)).eval()(images)
    vit = backbones.DeepViT('16', out_indices=(0,), out_strides=(16,)).eval()(images, [(64, 48)])
print(tuple(logits.shape), [tuple(one.shape) for one in (*maps, *vit)])
"""


def test_backbones_work_without_mmengine():
    result = subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True)
    assert result.stdout.strip() == '(1, 7) [(1, 64, 7, 7), (1, 256, 2, 2), (1, 384, 4, 3)]', result.stderr
