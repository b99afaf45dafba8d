"""tools/get_complexity.py: classifiers and detectors by name, and one sentence for bad input."""

import json

import pytest

from pit_downstream.cli import get_complexity

from tests.tools.conftest import REPO


@pytest.fixture
def main(capsys):
    """main('--model', 'pit_s', ...) -> (exit code, standard output, standard error), in this process."""
    def run(*args):
        code = 0
        try:
            get_complexity.main([*map(str, args)])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()
    return run


def test_a_classifier_with_time_and_memory(main, tmp_path):
    code, out, _ = main('--model', 'pit_ti(num_classes=10)', '--shape', 48, 65, '--repeats', 1, '--batch-size', 2,
                        '--json', tmp_path / 'facts.json')
    assert code == 0 and 'one image of 48 x 65' in out and 'transformers.0' in out
    found = json.loads((tmp_path / 'facts.json').read_text())
    assert found['flops'] == 2 * found['macs'] and [one['batch'] for one in found['timings']] == [1, 2]
    assert found['parameters'] == 4_847_272 - 990 * 257  # the head lacks 990 classes of 256 weights and a bias
    assert f'{1e3 * found["timings"][0]["median_seconds"]:.1f} ms' in out


@pytest.mark.parametrize('config, heads', [('retinanet_pit_ti.py', {'neck', 'bbox_head'}),
                                           ('mask_rcnn_pit_s.py', {'neck', 'rpn_head', 'roi_head'})])
def test_a_detector(main, tmp_path, config, heads):
    code, out, _ = main('--model', REPO / 'configs' / config, '--shape', 96, 130, '--repeats', 0, '--json',
                        tmp_path / 'facts.json')
    assert code == 0 and 'backbone.transformers.0' in out
    found = json.loads((tmp_path / 'facts.json').read_text())
    parts = {one['name']: one for one in found['groups']}
    assert {'backbone', *heads} <= parts.keys() and all(parts[name]['macs'] > 0 for name in heads)
    assert found['shape'] == [96, 160]  # padded to multiples of 32
    assert sum(one['parameters'] for one in found['parts']) == found['parameters']


@pytest.mark.parametrize('args, words', [
    (['--model', 'pit_xxl'], "no model named 'pit_xxl'"),
    (['--model', 'configs/none.py'], "config file not found: 'configs/none.py'"),
    (['--model', 'pit_ti', '--cfg-options', 'a=1'], '--cfg-options applies to a detector'),
    (['--model', 'vit_tiny_patch16_224', '--shape', '48', '65'], 'expected a size that the model takes, got 48 x 65'),
    (['--model', 'pit_ti', '--json', 'none/facts.json'], 'in a folder that is there'),
    (['--model', 'pit_ti', '--device', 'abacus'], 'expected a device like cpu'),
])
def test_bad_input_gets_one_sentence(main, args, words):
    code, out, error = main(*args)
    assert (code, out) == (2, '') and words in error and len(error.strip().splitlines()) == 1
