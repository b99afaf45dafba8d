"""eval_adversarial, show_detections.py and train_patch.py on a few bundled images."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

import pit_downstream.corruptions
import pit_downstream.det  # noqa: F401  both register what they have before a test puts the registries back
from pit_downstream.utils.registry import ATTACKS, CORRUPTIONS
from tests.det import scenes, tiny

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """run(tool, *flags) runs a tool in this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.path', sys.path.copy())
    for registry in (ATTACKS, CORRUPTIONS):
        monkeypatch.setattr(registry, '_entries', registry._entries.copy())

    def run(tool, *flags):
        monkeypatch.setattr('sys.argv', [str(TOOLS / tool), *map(str, flags)])
        code = 0
        try:
            runpy.run_path(str(TOOLS / tool), run_name='__main__')
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()
    return run


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """A file with a stock FCOS, not ours, and five images."""
    folder = tmp_path_factory.mktemp('config')
    cfg = tiny.config(scenes.coco_folder(folder / 'data'), 'fcos')
    cfg.dump(folder / 'fcos_tiny.py')
    return folder / 'fcos_tiny.py'


SAMPLES = ('--limit', '2', '--device', 'cpu')
FEW = (*SAMPLES, '--workers', '0')


@pytest.mark.parametrize('at', ['network', 'original'])
def test_a_detector_that_is_not_ours_is_attacked(run, config, at):
    attacks = ('noise', "pgd(loss='cls', steps=1)", "tog(confidence=0.0, mode='vanishing', steps=1)")
    flags = ('--model', config, '--weights', 'random', *FEW, '--attacks', *attacks, '--epsilons', '2/255', '8/255',
             '--resolution', at)
    code, out, said = run('eval_adversarial.py', *flags, '--json', 'out.json', '--csv', 'out.csv')
    assert code == 0, said
    lines = out.splitlines()
    assert lines[0].startswith('fcos_tiny(') and ("at='original'" in lines[0]) == (at == 'original')
    assert lines.pop(1).startswith('AP by ')
    assert lines[2].split() == ['AP', 'no', 'attack', '2/255', '8/255'] and lines[3].startswith('clean ')
    assert [line.split('(')[0] for line in lines[4:7]] == ['clean + noise', 'clean + pgd', 'clean + tog']
    said = json.loads(Path('out.json').read_text())
    assert len(said['summary']) == 7 and said['schema'] == 1
    assert len(Path('out.csv').read_text().splitlines()) == 1 + len(said['records'])
    kept = Path('work_dirs/records/results.jsonl').read_text()
    assert run('eval_adversarial.py', *flags)[1] == out and Path('work_dirs/records/results.jsonl').read_text() == kept


@pytest.mark.parametrize('flags, words', [
    (('--attacks', 'tig'), 'no attack named .tig.; did you mean tog'),
    (('--attacks', "pgd(loss='none')"), "loss is one of .*for a detector of all, cls, box, rpn, roi, got 'none'"),
    (('--attacks', "pgd(loss='rpn', steps=1)"), 'expected losses of type rpn from the detector'),
    (('--attacks', 'noise', 'fab'), 'expected a classifier for FAB, got fcos_tiny'),
    (('--attacks', 'noise', '--save-images', 'images'), '--save-images applies to a classifier, got a detector')])
def test_what_cannot_be_is_one_sentence_before_anything_is_measured(run, config, flags, words):
    code, _, said = run('eval_adversarial.py', '--model', config, '--weights', 'random', *FEW, *flags)
    assert code == 2 and len(said.strip().splitlines()) == 1
    assert re.search(words, said) and not Path('work_dirs/records').exists()


def test_help_knows_both(run):
    text = ' '.join(run('eval_adversarial.py', '--help')[1].split())
    assert '--source MODEL' in text and '--resolution {network,original}' in text


def test_a_image(run, config):
    code, out, said = run('show_detections.py', '--model', config, '--weights', 'random', *SAMPLES, '--image', '1',
                          '--score-thr', '1',
                          '--corruptions', 'fog(severity=3)', '--attacks', 'pgd(epsilon=8/255, steps=1)')
    assert code == 0, said
    assert out.startswith('detections.png: image ') and Image.open('detections.png').size[0] > 3 * 384
    code, _, said = run('show_detections.py', '--model', config, '--weights', 'random', *SAMPLES, '--image', '2')
    assert (code, said) == (2, '--image must be in 0..1, got 2.\n')


def test_a_patch(run, config):
    code, out, said = run('train_patch.py', '--model', config, '--weights', 'random', *SAMPLES, '--steps', '2',
                          '--batch-size', '2')
    assert code == 0, said
    path = out.strip()
    assert path.startswith('patches/dpatch_')
    code, out, said = run('eval_adversarial.py', '--model', config, '--weights', 'random', *FEW, '--epsilons', '2/255',
                          '--attacks', 'noise', 'dpatch', f"dpatch(file='{path}')")
    assert code == 0, said
    lines = out.splitlines()[3:]
    assert lines[0].split() == ['AP', 'no', 'attack', '2/255', '1'] and path in lines[4]  # patches are not faded
    for flags, words in ((('--batch-size', 'auto'), 'expected an integer, 1 or more'), (('--share', '2'),
                                                                                        'share in 0..1'),
                         (('--step-size', '0'), 'expected a step of more than 0'), (('--steps', '0'),
                                                                                    'expected 1 step')):
        code, _, said = run('train_patch.py', '--model', config, '--weights', 'random', *SAMPLES, *flags)
        assert code == 2 and words in said
