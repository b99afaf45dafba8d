"""tools/eval_imagenet_c.py on a toy model and forty images."""

import csv
import json
import shlex
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import pit_downstream.corruptions  # noqa: F401  registers them, before a test puts the registry back
from pit_downstream.benchmarks import imagenet_c
from pit_downstream.utils.registry import CORRUPTIONS
from tests.evaluation import toy

FLAGS = ('--model', toy.NAME, '--data', 'val', '--output-dir', 'store')
BLOCK = """import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('mmdet', 'mmcv', 'cv2', 'skimage', 'scipy', 'numba', 'pkg_resources'):
            raise ModuleNotFoundError(f'{name} is not here', name=name)
sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[1:]
import runpy
runpy.run_path(sys.argv[0], run_name='__main__')
"""


REPO = Path(__file__).parents[2]
TOOL = REPO / 'tools' / 'eval_imagenet_c.py'


@pytest.fixture
def measured(tmp_path, monkeypatch, in_process):
    """measured(*flags) runs the tool in this process where val/ has forty images: (exit code, stdout, stderr)."""
    toy.pictures(tmp_path / 'val')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.path', sys.path.copy())
    monkeypatch.setattr(CORRUPTIONS, '_entries', CORRUPTIONS._entries.copy())

    def run(*flags):
        return in_process(TOOL.name, *FLAGS, *flags)
    return run


def test_the_whole_benchmark_without_detection_libraries(tool, measured, tmp_path, monkeypatch):
    """Frost's textures lie in imagecorruptions, whose files are read without importing it."""
    monkeypatch.setenv('PYTHONPATH', str(REPO))
    done = tool('eval_imagenet_c.py', *FLAGS, '--csv', 'out.csv', '--json', 'out.json',
                start=(sys.executable, '-c', BLOCK))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''  # no progress bar without a terminal
    lines = done.stdout.splitlines()
    assert lines[0].startswith("tests.evaluation.toy:classifier(mean=(0.5, 0.4, 0.3), std=0.2, weights='custom@")
    assert lines[0].endswith(', 40 images') and lines.pop(1).startswith('preprocessing: ')
    assert lines[2].split() == ['top1_error', '1', '2', '3', '4', '5', 'mean']
    assert [line.split()[0] for line in lines[3:19]] == ['clean', *imagenet_c.CORRUPTIONS]
    assert [line.split('  ')[0] for line in lines[21:]] == [
        'mean accuracy', *(f'at severity {severity}' for severity in range(1, 6))]
    rows = list(csv.DictReader((tmp_path / 'out.csv').open()))
    assert len(rows) == 76 * 4 and {row['count'] for row in rows} == {'40'}
    summary = json.loads((tmp_path / 'out.json').read_text())
    errors = [row['value'] for row in summary['records'] if row['metric'] == 'top1_error' and row['corruption']]
    mean, low, high, _ = summary['summary']['mean_accuracy'].values()
    assert mean == pytest.approx(1 - sum(errors) / 75)
    assert f'mean accuracy {mean:.4f} {low:.4f} to {high:.4f}' in [' '.join(line.split()) for line in lines]
    assert not any('CE' in name for name in summary['summary'])
    before = (tmp_path / 'store' / 'results.jsonl').read_bytes()
    assert measured() == (0, done.stdout, '')  # the second run adds nothing and prints the table
    assert (tmp_path / 'store' / 'results.jsonl').read_bytes() == before


def test_a_part_is_measured_and_the_rest_is_named(measured, tmp_path):
    code, out, said = measured('--corruptions', 'gaussian_noise', 'spatter', '--severities', '1', '3', '1', '--limit',
                               '12', '--jpeg-quality', '85', '--workers', '2', '--cache', 'cache', '--batch-size', '5')
    assert code == 0, said
    lines = out.splitlines()
    assert 'limit=12' in lines[0] and lines.pop(1).startswith('preprocessing: ')
    assert [line.split()[0] for line in lines[3:6]] == ['clean', 'gaussian_noise', 'spatter']
    assert lines[8].startswith('mean accuracy of the 4 above  ')
    assert lines[10].startswith('no mean accuracy of all 75: 73 conditions (') and '--jpeg-quality 85' in lines[10]
    stored = [json.loads(line) for line in (tmp_path / 'store' / 'results.jsonl').read_text().splitlines()]
    assert {record['condition'] for record in stored} == {
        'clean', 'gaussian_noise(jpeg=85, severity=1)', 'gaussian_noise(jpeg=85, severity=3)',
        'spatter(jpeg=85, severity=1)', 'spatter(jpeg=85, severity=3)'}


def test_the_command_that_is_named_fills_the_gap(measured, tmp_path):
    few = ('--limit', '8', '--batch-size', '8', '--severities', '1')
    code, out, said = measured(*few, '--corruptions', 'contrast')
    assert code == 0, said
    command = shlex.split(out.partition('To measure it: ')[2].splitlines()[0])
    assert command[:2] == ['pit-downstream', 'eval-imagenet-c'] and command.count('--severities') == 1
    code, out, said = measured(*command[2:])
    assert code == 0 and '\nmean accuracy ' in out and 'limit=8' in out, said


def test_published_folders_and_custom_corruption(measured, tmp_path):
    (tmp_path / 'halving.py').write_text(
        'from pit_downstream.utils.registry import CORRUPTIONS\n\n\n'
        "@CORRUPTIONS.register('half', group='mine', strengths=(.5,), source='own')\n"
        'def half(images, factor, rng):\n    return images * factor\n')
    code, out, said = measured('--import', 'halving', '--corruptions', 'half', '--severities', '1')
    assert code == 0, said
    for wnid in toy.WNIDS:
        for path in (tmp_path / 'val' / wnid).iterdir():
            dark = tmp_path / 'set' / 'half' / '1' / wnid / f'{path.stem}.png'
            dark.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as picture:
                picture.point(lambda level: level // 2).save(dark)
    few = ('--corrupted-data', 'set', '--corrupted-name', 'mine', '--corruptions', 'half', '--severities', '1')
    code, _, said = measured(*few, '--data', 'typo')
    assert code == 2 and said.startswith('no folder of images: typo.')
    code, published, said = measured(*few)
    assert code == 0, said
    assert ' on mine(clean_files=' in published and 'mean accuracy of the 1 above' in published
    assert published.splitlines()[2:4] == out.splitlines()[2:4]  # the clean images are those of --data in both


def test_bad_input_ends_with_one_sentence(measured, tmp_path):
    torch.save({'head.weight': torch.zeros(3)}, tmp_path / 'wrong.pth')
    for flags, words in ((('--data', 'nowhere'), 'no folder of images: nowhere.'),
                         (('--corruptions', 'fogg'), "no corruption named 'fogg'; did you mean fog"),
                         (('--severities', '0'), 'severity must be in 1..5, got 0'),
                         (('--weights', 'wrong.pth'), 'expected weights of tests.evaluation.toy:classifier'),
                         (('--model', toy.NAME, '--corrupted-data', 'val', '--corruptions', 'fog'),
                          'expected the folders fog/1, fog/2, fog/3, fog/4, fog/5 in val, found none of these'),
                         (('--device', 'cuda:77' if torch.cuda.is_available() else 'cuda'), 'expected a GPU')):
        code, _, said = measured(*flags)
        assert (code, len(said.splitlines())) == (2, 1) and words in said and not (tmp_path / 'store').exists()


def test_places_and_numbers_are_checked_before_any_work(measured, tmp_path, monkeypatch):
    monkeypatch.setattr('pit_downstream.evaluation.models.build_classifier', None)
    (tmp_path / 'file').write_text('')
    (tmp_path / 'odd' / 'results.jsonl').mkdir(parents=True)
    for flags, words in ((('--csv', 'nowhere/x.csv'), 'expected a file to write for --csv in a folder that is there'),
                         (('--json', '.'), 'expected a file to write for --json, got the folder .'),
                         (('--output-dir', '/proc/x'), 'expected a folder to write to for --output-dir, got /proc/x'),
                         (('--output-dir', 'file'), 'expected a folder to write to for --output-dir, got file'),
                         (('--output-dir', 'odd'), 'not a file of records: odd/results.jsonl'),
                         (('--cache', '/proc/x'), 'expected a folder to write to for --cache'),
                         (('--allow-missing', '-1'), 'expected an integer, 0 or more'),
                         (('--corrupted-name', 'mine'), '--corrupted-name mine needs the folder'),
                         (('--corrupted-data', 'val', '--cache', 'c'), '--cache does not apply to the files of'),
                         (('--corrupted-data', 'val', '--variant', 'hendrycks'),
                          '--variant does not apply to the files of'),
                         (('--workers', '-1'), 'expected an integer, 0 or more'),
                         (('--seed', str(2 ** 70)), 'expected an integer, 0 or more'),
                         (('--device', 'meta'), "expected a device like cpu, cuda or cuda:1, got 'meta'")):
        code, _, said = measured(*flags)
        assert code == 2 and words in said and 'Traceback' not in said and not (tmp_path / 'store').exists()


def test_unreadable_images_stop_the_summary(measured, tmp_path):
    (tmp_path / 'val' / toy.WNIDS[0] / '00.JPEG').write_bytes(b'broken')
    few = ('--corruptions', 'contrast', '--severities', '1')
    code, _, said = measured(*few)
    assert code == 2 and '1 images are unreadable: n01440764/00.JPEG (' in said
    assert measured(*few, '--allow-missing', '1')[0] == 0
    code, _, said = measured(*few)  # what was measured with a gap is not summarized unless the gap is accepted
    assert code == 2 and 'is of 39 of 40 images: 1 could not be read' in said
