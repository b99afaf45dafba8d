"""Every tool: a script in tools/, a name for `pit-downstream`, and --help that imports no library."""

import subprocess
import sys
from pathlib import Path

import pytest

from pit_downstream.cli.main import TOOLS, main

REPO = Path(__file__).parents[2]
HEAVY = ('torch', 'torchvision', 'timm', 'numpy', 'scipy', 'PIL', 'mmengine', 'mmcv', 'mmdet', 'pandas', 'matplotlib')
SCRIPT = """import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name='__main__')
finally:
    print('imported:', *sorted(set(sys.modules) & {heavy}))
"""


def test_every_script_is_a_tool_of_the_console_script():
    assert {path.stem for path in (REPO / 'tools').glob('*.py')} == set(TOOLS)


@pytest.mark.parametrize('tool', TOOLS)
def test_help_imports_no_library(tool, tmp_path):
    script = [sys.executable, '-c', SCRIPT.replace('{heavy}', repr(set(HEAVY))), str(REPO / 'tools' / f'{tool}.py')]
    done = subprocess.run([*script, '--help'], capture_output=True, text=True, timeout=120, cwd=tmp_path,
                          env={'PYTHONPATH': str(REPO), 'PATH': '/usr/bin:/bin', 'COLUMNS': '100'})
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == 'imported:', done.stderr or done.stdout[-200:]
    assert f'pit-downstream {tool.replace("_", "-")} ' in done.stdout and '--debug' in done.stdout


@pytest.mark.parametrize('name', ['eval-imagenet-c', 'eval_imagenet_c'])
def test_console_script_accepts_dashes_and_underscores(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['pit-downstream', name, '--help'])
    with pytest.raises(SystemExit, match='0'):
        main()
    assert capsys.readouterr().out.startswith(f'usage: pit-downstream {name} ')


@pytest.mark.parametrize('argv, code, text', [
    ([], 0, 'eval-coco-c'), (['--help'], 0, 'eval-coco-c'), (['--version'], 0, '0.'), (['eval-coco'], 2, 'eval-coco')])
def test_console_script_without_a_tool(argv, code, text, capsys, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['pit-downstream', *argv])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == code and text in ''.join(capsys.readouterr())
