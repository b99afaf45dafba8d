"""`python -m pit_downstream.check`: output and exit codes, for complete and incomplete installations."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pit_downstream import check
from pit_downstream.det import require_stack
from pit_downstream.training import safe_loading as checkpoint

ROOT = Path(__file__).parents[1]


def run(tmp_path, *arguments, without=()):
    """A fresh interpreter in which the modules `without` cannot be imported."""
    blocks = ''.join(f'import sys; sys.modules[{name!r}] = None\n' for name in without)
    (tmp_path / 'sitecustomize.py').write_text(blocks)
    environment = {**os.environ, 'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}'}
    return subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)


def test_complete_installation(tmp_path):
    done = run(tmp_path, '-m', 'pit_downstream.check')
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith('ok    ') and line[24] != ' ' and line[22:24] == '  ' for line in lines)
    assert [line[6:22].strip() for line in lines] == [
        'python', *check.CORE, *check.MM, 'device', 'mmdet.models', 'checkpoint', 'safe loading', 'nms', 'roi_align']
    assert f'ok    {"torch":16}  torch {torch.__version__.partition("+")[0]}' in done.stdout
    assert 'operators of mmcv: ' in done.stdout
    assert done.stderr == ''


@pytest.mark.parametrize('without, fix', [
    (('mmcv', 'mmengine'), "pip install 'pit_downstream[det]'"),
    (('torch',), 'pip install pit_downstream'),
    (('pkg_resources',), "pip install 'setuptools<81'"),
])
def test_missing_package(tmp_path, without, fix):
    done = run(tmp_path, '-m', 'pit_downstream.check', without=without)
    assert done.returncode == 1
    for name in without:
        assert f'FAIL  {name:16}  not installed\n{"":24}{fix}\n' in done.stdout
    assert done.stdout.count('FAIL') == len(without)
    assert 'Traceback' not in done.stdout + done.stderr


def test_import_of_det_without_mmdet_reports_the_pip_command(tmp_path):
    done = run(tmp_path, '-c', 'import pit_downstream.det', without=('mmdet', 'mmcv'))
    assert done.stderr.splitlines()[-1] == (
        "pit_downstream.utils.extras.MissingExtraError: Modules of the extra 'det' are not installed: mmcv, mmdet. "
        "Run pip install 'pit_downstream[det]'.")


def test_versions_that_mmdet_rejects(monkeypatch):
    def refuse(name, *_):
        if name == 'mmdet':
            raise AssertionError('MMCV==2.2.0 is used but incompatible.')
        return original(name, *_)

    original = __import__
    monkeypatch.setattr('builtins.__import__', refuse)
    with pytest.raises(ImportError, match=r'mmdet rejects an installed version: MMCV==2\.2\.0 is used but '
                                          r"incompatible\. Run pip install 'pit_downstream\[det\]'"):
        require_stack()


def failures():
    return {finding.subject: finding.fix for finding in check.run_checks() if finding.fix}


def test_wrong_operator_fails(monkeypatch, capsys):
    monkeypatch.setattr('mmcv.ops.nms', lambda boxes, scores, threshold: (boxes, torch.arange(3)))
    monkeypatch.setattr('mmcv.ops.roi_align', lambda *_: torch.zeros(1, 1, 2, 2))
    assert failures() == {
        'nms': 'nms: expected [0, 2], got [0, 1, 2]; please report this with the lines above',
        'roi_align': 'roi_align: expected [2.5, 4.5, 10.5, 12.5], got [0.0, 0.0, 0.0, 0.0]; '
                     'please report this with the lines above'}
    assert check.main() == 1
    assert 'FAIL  nms' in capsys.readouterr().out


def test_unsafe_loading_fails(monkeypatch):
    monkeypatch.setattr(checkpoint, 'load', lambda path, map_location=None: torch.load(path, weights_only=False))
    assert failures() == {
        'safe loading': 'code in a checkpoint was executed; load only files that you trust, and report this'}


def test_package_without_a_distribution():
    assert check._check_package('json') == check.Finding('json', 'version unknown, pip did not install it')


def test_two_distributions_of_one_package_fail(monkeypatch):
    monkeypatch.setattr(check.metadata, 'packages_distributions', lambda: {'mmcv': ['mmcv-lite', 'numpy']})
    finding = check._check_package('mmcv')
    assert 'mmcv-lite 2' in finding.detail and ' and numpy ' in finding.detail
    assert finding.fix == ('these are in one folder and overwrite each other; '
                            'pip uninstall mmcv-lite numpy, then install one of them')
