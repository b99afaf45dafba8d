"""tools/convert_weights.py: the written file loads strictly, and bad input gets one sentence."""

import pytest
import timm
import torch

import pit_downstream.backbones  # noqa: F401
from pit_downstream.cli.convert_weights import main
from tests.reference import formula

OFFICIAL = formula.weights(formula.SHAPES['pit_ti'])


def test_detector_checkpoint_becomes_official(tool, tmp_path):
    torch.save({'state_dict': {f'module.backbone.{name}': value for name, value in OFFICIAL.items()}},
               tmp_path / 'detector.pth')
    done = tool('convert_weights.py', 'detector.pth', '--output', 'out.pth', '--model', 'pit_ti')
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith('out.pth: 160 of 160 tensors loaded')
    timm.create_model('pit_ti').load_state_dict(torch.load(tmp_path / 'out.pth'))


def test_a_wrapped_deepvit_becomes_official(tool, tmp_path):
    state = formula.weights(formula.SHAPES['deepvit_16'])
    torch.save({'model': {f'module.{name}': value for name, value in state.items()}}, tmp_path / 'training.pth')
    done = tool('convert_weights.py', 'training.pth', '--output', 'out.pth', '--model', 'deepvit_16')
    assert done.returncode == 0, done.stderr
    timm.create_model('deepvit_16').load_state_dict(torch.load(tmp_path / 'out.pth'))


def test_bad_input_gets_one_sentence(tool, tmp_path):
    torch.save(OFFICIAL, tmp_path / 'ti.pth')
    done = tool('convert_weights.py', 'ti.pth', '--output', 'out.pth', '--model', 'pit_xl')
    assert (done.returncode, 'Traceback' in done.stderr) == (2, False) and "no model named 'pit_xl'" in done.stderr
    done = tool('convert_weights.py', 'ti.pth', '--output', 'out.pth', '--model', 'pit_s')
    assert (done.returncode, 'Traceback' in done.stderr) == (2, False) and 'check that arch' in done.stderr
    assert not (tmp_path / 'out.pth').exists()


@pytest.mark.parametrize('out, model, words', [
    ('nowhere/out.pth', 'pit_ti', 'for --output in a folder that is there'), ('.', 'pit_ti',
                                                                              'for --output, got the folder'),
    ('out.pth', 'pit_ti(color=1)', 'arguments that can be built, got pit_ti')])
def test_unwritable_or_unbuildable_input_is_reported_first(out, model, words, tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        main(['nowhere.pth', '--output', str(tmp_path / out), '--model', model])
    assert words in capsys.readouterr().err


def test_checkpoints_are_averaged_with_their_heads(tmp_path, capsys):
    model = timm.create_model('pit_ti', num_classes=3, img_size=32)
    states = [{name: torch.full_like(value, number) for name, value in model.state_dict().items()}
              for number in (1., 2., 6.)]
    files = [str(tmp_path / f'epoch_{number}.pth') for number in range(3)]
    for file, state in zip(files, states):
        torch.save({'state_dict': {f'network.{name}': value for name, value in state.items()}}, file)
    out = str(tmp_path / 'mean.pth')
    main([files[0], '--output', out, '--model', 'pit_ti(num_classes=3,img_size=32)', '--average', *files[1:]])
    model.load_state_dict(torch.load(out))
    assert all((value == 3).all() for value in model.state_dict().values())
    assert capsys.readouterr().out.strip().endswith('mean.pth: 160 of 160 tensors loaded')
