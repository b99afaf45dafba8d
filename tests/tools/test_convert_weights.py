"""tools/convert_weights.py: the written file loads strictly, and bad input gets one sentence."""

import runpy
import sys
from pathlib import Path

import pytest
import timm
import torch

import pit_downstream.backbones  # noqa: F401
from tests.reference import formula

TOOL = Path(__file__).parents[2] / 'tools' / 'convert_weights.py'
OFFICIAL = formula.weights(formula.SHAPES['pit_ti'])


def main():
    runpy.run_path(str(TOOL))['main']()


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


@pytest.mark.parametrize('out, model, words', [
    ('nowhere/out.pth', 'pit_ti', 'for OUT in a folder that is there'), ('.', 'pit_ti', 'for OUT, got the folder'),
    ('out.pth', 'pit_ti(color=1)', 'arguments that can be built, got pit_ti')])
def test_what_could_not_be_written_or_built_is_said_first(out, model, words, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['convert_weights.py', 'nowhere.pth', str(tmp_path / out), '--model', model])
    with pytest.raises(ValueError, match=words):
        main()


def test_checkpoints_are_averaged_with_their_heads(tmp_path, monkeypatch, capsys):
    model = timm.create_model('pit_ti', num_classes=3, img_size=32)
    states = [{name: torch.full_like(value, number) for name, value in model.state_dict().items()}
              for number in (1., 2., 6.)]
    files = [str(tmp_path / f'epoch_{number}.pth') for number in range(3)]
    for file, state in zip(files, states):
        torch.save({'state_dict': {f'network.{name}': value for name, value in state.items()}}, file)
    out = str(tmp_path / 'mean.pth')
    monkeypatch.setattr(sys, 'argv', [
        'convert_weights.py', files[0], out, '--model', 'pit_ti(num_classes=3,img_size=32)', '--average', *files[1:]])
    main()
    model.load_state_dict(torch.load(out))
    assert all((value == 3).all() for value in model.state_dict().values())
    assert capsys.readouterr().out.strip().endswith('mean.pth: 160 of 160 tensors loaded')
