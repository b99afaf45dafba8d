"""tools/convert_weights.py: the written file loads strictly, and bad input gets one sentence."""

import timm
import torch

import pit_downstream.backbones  # noqa: F401
from tests.reference import formula

OFFICIAL = formula.weights(formula.SHAPES['pit_ti'])


def test_detector_checkpoint_becomes_official(tool, tmp_path):
    torch.save({'state_dict': {f'module.backbone.{name}': value for name, value in OFFICIAL.items()}},
               tmp_path / 'detector.pth')
    done = tool('convert_weights.py', 'detector.pth', 'out.pth', '--model', 'pit_ti')
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith('out.pth: 160 of 160 tensors loaded')
    timm.create_model('pit_ti').load_state_dict(torch.load(tmp_path / 'out.pth'))


def test_a_wrapped_deepvit_becomes_official(tool, tmp_path):
    state = formula.weights(formula.SHAPES['deepvit_16'])
    torch.save({'model': {f'module.{name}': value for name, value in state.items()}}, tmp_path / 'training.pth')
    done = tool('convert_weights.py', 'training.pth', 'out.pth', '--model', 'deepvit_16')
    assert done.returncode == 0, done.stderr
    timm.create_model('deepvit_16').load_state_dict(torch.load(tmp_path / 'out.pth'))


def test_bad_input_gets_one_sentence(tool, tmp_path):
    torch.save(OFFICIAL, tmp_path / 'ti.pth')
    done = tool('convert_weights.py', 'ti.pth', 'out.pth', '--model', 'pit_xl')
    assert (done.returncode, 'Traceback' in done.stderr) == (2, False) and "no model named 'pit_xl'" in done.stderr
    done = tool('convert_weights.py', 'ti.pth', 'out.pth', '--model', 'pit_s')
    assert (done.returncode, 'Traceback' in done.stderr) == (2, False) and 'check that arch' in done.stderr
    assert not (tmp_path / 'out.pth').exists()
