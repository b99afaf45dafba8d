"""tools/eval_adversarial.py on a toy model and forty images."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import pit_downstream.attacks
import pit_downstream.corruptions  # noqa: F401  both register what they have before a test puts the registries back
from pit_downstream.utils.registry import ATTACKS, CORRUPTIONS
from pit_downstream.results.records import get_model_key
from pit_downstream.evaluation.models import build_classifier
from tests.evaluation import toy

TOOL = Path(__file__).parents[2] / 'tools' / 'eval_adversarial.py'
FLAGS = ('--model', toy.FOUR, '--data', 'val', '--output-dir', 'store', '--workers', '0')
FEW = ('--attacks', 'noise', 'pgd(steps=3)', '--epsilons', '1/255', '4/255')


@pytest.fixture
def measured(tmp_path, monkeypatch, in_process):
    """measured(*flags) runs the tool in this process where val/ has forty images: (exit code, stdout, stderr)."""
    toy.recognised(tmp_path / 'val')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.path', sys.path.copy())
    for registry in (ATTACKS, CORRUPTIONS):
        monkeypatch.setattr(registry, '_entries', registry._entries.copy())

    def run(*flags):
        return in_process(TOOL.name, *FLAGS, *flags)
    return run


def names(out):
    """The first column of the table."""
    return [line.split('  ')[0] for line in out.split('\n\n')[1].splitlines()[1:]]


def test_table_its_files_and_images(measured, tmp_path):
    code, out, said = measured(*FEW, '--save-images', 'images', '--csv', 'out.csv', '--json', 'out.json')
    assert (code, said) == (0, ''), said
    assert 'warning' not in out
    lines = out.splitlines()
    assert lines[0].startswith("tests.evaluation.toy:classifier(classes=4, mean=(0.5, 0.4, 0.3), std=0.2, weights=")
    assert lines.pop(1).startswith('preprocessing: ')
    cells = [line.split() for line in lines[2:10]]
    assert cells[0] == ['attack', 'norm', 'epsilon', 'accuracy', '95', '%', 'forwards', 'backwards']
    assert cells[1][:2] == ['clean', '0.8000']
    assert [row[:3] for row in cells[2:6]] == [['noise', 'Linf', '1/255'], ['noise', 'Linf', '4/255'],
                                               ['pgd(steps=3)', 'Linf', '1/255'], ['pgd(steps=3)', 'Linf', '4/255']]
    assert [row[:4] for row in cells[6:8]] == [['worst', 'case', 'Linf', '1/255'], ['worst', 'case', 'Linf', '4/255']]
    assert float(cells[7][4]) <= min(float(cells[3][3]), float(cells[5][3])) < .8
    rows = list(csv.DictReader((tmp_path / 'out.csv').open()))
    assert len(rows) == 1 + 4 * 3 and rows[-1]['epsilon'] == '4/255' and {row['count'] for row in rows} == {'40'}
    read = json.loads((tmp_path / 'out.json').read_text())
    assert read['summary']['accuracy(clean)']['value'] == .8 and read['schema'] == 1
    worst = read['summary']["accuracy(clean + worst_case(epsilon=4/255, norm='Linf'))"]
    assert (f'{worst["value"]:.4f}', worst['count']) == (cells[7][4], 40)
    folders = sorted(path.name for path in (tmp_path / 'images').iterdir())
    assert folders[:2] == ['about.json', 'clean'] and sum(name.endswith('.png') for name in folders) == 4
    assert np.load(next((tmp_path / 'images' / 'clean').rglob('*.npy'))).dtype == np.float32
    before = {path: path.read_bytes() for path in (tmp_path / 'store').iterdir()}
    assert measured(*FEW, '--save-images', 'images') == (0, out, '')  # the second run adds nothing and prints the table
    assert {path: path.read_bytes() for path in (tmp_path / 'store').iterdir()} == before


def test_fractions_of_decimals_are_exact(measured, tmp_path):
    """0.5/255 is 1/510 in table, records and options, however it is written."""
    code, out, said = measured('--attacks', 'fgsm', '--epsilons', '0.5/255', '1/510', '2.0/255')
    assert (code, said) == (0, ''), said
    assert [line.split()[2] for line in out.splitlines()[5:7]] == ['1/510', '2/255']
    first = (tmp_path / 'store' / 'results.jsonl').read_bytes()
    assert b'fgsm(epsilon=1/510, ' in first
    assert measured('--attacks', 'fgsm(epsilon=0.5/255)', 'fgsm(epsilon=2/255)') == (0, out, '')
    assert (tmp_path / 'store' / 'results.jsonl').read_bytes() == first


def test_an_image_with_two_classes_is_refused(run_tool, tmp_path):
    toy.pictures(tmp_path / 'data', count=2)
    for path in sorted(tmp_path.glob('data/*/*')):
        path.rename(tmp_path / 'data' / path.name)
    (tmp_path / 'labels.txt').write_text('00.JPEG 0\n01.JPEG 1\n00.JPEG 2\n')
    done = run_tool(TOOL.name, '--model', toy.FOUR, '--data', 'data', '--labels', 'labels.txt', '--output-dir', 'store')
    assert done.code == 2 and 'labels.txt' in done.err and '00.JPEG' in done.err and '0 and 2' in done.err
    assert not (tmp_path / 'store').exists()


@pytest.mark.parametrize('tool', ['eval_adversarial.py', 'eval_imagenet_c.py', 'eval_shifts.py'])
def test_features_are_no_classifier(run_tool, tmp_path, tool):
    """pit_ti(num_classes=0) gives 256 features, which would pass for logits of 256 classes."""
    toy.pictures(tmp_path / 'data', count=2)
    done = run_tool(tool, '--model', 'pit_ti(img_size=32, num_classes=0)', '--weights', 'random', '--data', 'data',
                    '--output-dir', 'store', *(['--shifts', 'shift_x=data'] if 'shifts' in tool else []))
    assert done.code == 2 and 'num_classes=0' in done.err and not list(tmp_path.glob('store/*'))


@pytest.mark.parametrize('tool, flags', [
    ('eval_adversarial.py', ['--model', toy.FOUR]), ('eval_imagenet_c.py', ['--model', toy.FOUR]),
    ('eval_shifts.py', ['--model', toy.FOUR]), ('eval_coco_c.py', ['--model', 'configs/retinanet_pit_ti.py',
                                                                   '--weights', 'random']),
    ('eval_adversarial.py', ['--model', 'configs/retinanet_pit_ti.py', '--weights', 'random']),
    ('show_detections.py', ['--model', 'configs/retinanet_pit_ti.py', '--weights', 'random']),
    ('train_patch.py', ['--model', 'configs/retinanet_pit_ti.py', '--weights', 'random']),
    ('analyze_attention.py', ['--model', 'pit_ti', '--bundled', '--output-dir', 'out'])])
def test_negative_seeds_are_refused(run_tool, tmp_path, tool, flags):
    before = sorted(tmp_path.iterdir())
    done = run_tool(tool, *flags, '--seed', '-1')
    assert done.code == 2 and '--seed' in done.err and '-1' in done.err and 'Traceback' not in done.err
    assert [path for path in sorted(tmp_path.iterdir()) if path not in before] in ([], [tmp_path / 'configs'])


def test_corruptions_with_attacks_and_alone(measured):
    code, out, said = measured('--attacks', 'pgd(steps=2)', '--epsilons', '4/255', '--corruptions', 'fog(severity=2)',
                               '--limit', '12')
    assert (code, said) == (0, ''), said
    assert names(out) == ['clean', 'fog(severity=2)', 'pgd(steps=2)', 'fog(severity=2) + pgd(steps=2)']
    code, out, said = measured('--attacks', '--corruptions', 'occlusion(share=0.25)',
                               "occlusion(shape='center', share=1)")
    assert (code, said) == (0, ''), said
    assert names(out) == ['clean', 'occlusion(share=0.25)', "occlusion(shape='center', share=1)"]


def test_custom_attack(measured, tmp_path):
    (tmp_path / 'mine.py').write_text(
        'from dataclasses import dataclass\n\nfrom pit_downstream.attacks.base import Attack\n'
        'from pit_downstream.utils.registry import ATTACKS\n\n\n'
        "@ATTACKS.register('darken', source='own')\n@dataclass(frozen=True)\nclass Darken(Attack):\n"
        '    def run(self, predictor, batch, rng):\n        return batch.images - self.threat.epsilon\n')
    code, out, said = measured('--import', 'mine', '--attacks', 'darken', '--norm', 'L2', '--epsilons', '0.5')
    assert (code, said) == (0, ''), said
    assert out.splitlines()[5].split()[:3] == ['darken', 'L2', '0.5']


def test_images_made_on_another_model(measured):
    """On itself the transfer is the attack run to its end."""
    code, out, said = measured('--attacks', 'pgd(steps=3)', 'noise', '--epsilons', '2/255', '--source', toy.FOUR)
    assert (code, said) == (0, ''), said
    own = get_model_key(build_classifier(toy.FOUR).name)  # which identifies the weights
    line = out.splitlines()[2]  # the source does not resize the images
    assert build_classifier(toy.FOUR).name in line and 'mean 0.5 0.4 0.3, std 0.2' in line and 'crop' not in line
    assert names(out)[1:3] == [f'transfer(attack=\'pgd\', source="{own}", steps=3)', 'noise']
    itself = measured('--attacks', 'pgd(run_to_end=True, steps=3)', '--epsilons', '2/255')[1]
    assert out.splitlines()[6].split()[-7:-3] == itself.splitlines()[5].split()[-7:-3]
    smaller = measured('--attacks', 'pgd(steps=3)', '--epsilons', '2/255', '--source', toy.FOUR, '--img-size', '16')
    assert smaller[0] == 0, smaller  # --img-size is for both


def test_patches_have_no_epsilon(measured):
    code, out, said = measured('--attacks', 'occlude_salient(side=8, count=4)', 'occlude_salient(count=16, side=8)')
    assert (code, said) == (0, ''), said
    assert names(out) == ['clean', 'occlude_salient(count=4, side=8)', 'occlude_salient(count=16, side=8)']
    assert out.splitlines()[5].split()[2] == 'patch'


def test_masked_gradients_are_reported(measured, tmp_path):
    """A model behind rounded inputs, which gradients do not pass."""
    (tmp_path / 'masked.py').write_text(
        'from torch import nn\n\nfrom tests.evaluation import toy\n\n\n'
        'class Rounded(toy.Toy):\n    def forward(self, images):\n'
        '        return super().forward((images * 8).round() / 8)\n'
        '\n\ndef model():\n    return Rounded(4)\n')
    code, out, said = measured('--model', 'masked:model', '--attacks', 'pgd(steps=3)', '--epsilons', '1/255', '4/255')
    assert (code, said) == (0, ''), said
    assert 'warning: no gradient reaches ' in out


def test_search_in_half_precision_is_reported(measured):
    code, out, said = measured('--attacks', 'noise', '--epsilons', '4/255', '--precision', 'bf16')
    assert (code, said) == (0, ''), said
    assert out.startswith("tests.evaluation.toy:classifier(classes=4, mean=(0.5, 0.4, 0.3), search='bf16', std=0.2, ")


@pytest.mark.parametrize('flags, words', [
    (('--attacks', 'pdg'), "no attack named 'pdg'; did you mean pgd"),
    (('--attacks', 'pgd(steps=1)', '--source', f'{toy.NAME}(classes=2)'), 'has 2 classes, got data of class '),
    (('--attacks', f"transfer(attack='pgd', source='{toy.NAME}(classes=2)', steps=1)"),
     'has 2 classes, got data of class '),
    (('--attacks', 'pgd(steps=1)', '--source', 'resnet50', '--data', 'nowhere'), 'no folder of images: nowhere.'),
    (('--attacks', 'pgd(mood=3)'), 'as arguments of pgd, got mood'),
    (('--attacks', 'pgd', '--norm', 'L7', '--epsilons', '1'), "norm is one of Linf, L2, L1"),
    (('--attacks', 'pgd', '--norm', 'L2'), '--norm L2 has no default sizes. Pass --epsilons'),
    (('--attacks', 'pgd', '--epsilons', '8'), 'write 8/255'),
    (('--attacks', 'pgd', '--epsilons', 'eight'), 'expected literals and fractions n/m as arguments, got eight'),
    (('--attacks', 'pgd', '--epsilons', '"8"'), "epsilon must be a number like 8/255 or 0.5"),
    (('--attacks', 'pgd', '--corruptions', 'fogg(severity=1)'), "no corruption named 'fogg'; did you mean fog"),
    (('--attacks', 'noise', '--precision', 'fp16'), '--precision fp16 loses small gradients'),
    (('--attacks', 'noise', '--data', 'nowhere'), 'no folder of images: nowhere.'),
])
def test_bad_input_ends_with_one_sentence(measured, tmp_path, flags, words):
    code, _, said = measured(*flags)
    assert (code, len(said.splitlines())) == (2, 1) and words in said and not (tmp_path / 'store').exists()
