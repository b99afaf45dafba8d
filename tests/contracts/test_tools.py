"""Every tool: at most sixty lines, opens with a command, and explains itself."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = sorted((Path(__file__).parents[2] / 'tools').glob('*.py'))


@pytest.mark.parametrize('tool', TOOLS, ids=lambda path: path.name)
def test_is_short_and_helps(tool):
    source = tool.read_text()
    assert len(source.splitlines()) <= 60
    assert f'python tools/{tool.name}' in source.split('"""')[1]
    done = subprocess.run([sys.executable, str(tool), '--help'], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and f'python tools/{tool.name}' in done.stdout
