"""The tools, run as a user runs them."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]


@pytest.fixture
def tool(tmp_path):
    """tool('train.py', 'configs/x.py', ...) -> CompletedProcess, run in an empty folder that has our configs."""
    (tmp_path / 'configs').symlink_to(REPO / 'configs')

    def run(name, *args, start=(sys.executable,), timeout=560):
        command = [*start, str(REPO / 'tools' / name), *map(str, args)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=timeout)
    return run


@pytest.fixture
def in_process(monkeypatch, capsys):
    """in_process('train.py', *flags) runs a tool in this process: (exit code, stdout, stderr)."""
    def run(name, *flags):
        path = str(REPO / 'tools' / name)
        monkeypatch.setattr('sys.argv', [path, *map(str, flags)])
        code = 0
        try:
            runpy.run_path(path, run_name='__main__')
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()
    return run
