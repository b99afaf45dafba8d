"""What a measurement ran on: versions, device, commit. Kept beside every number in this folder."""

import platform
import subprocess
from pathlib import Path

import torch


def environment() -> dict:
    """{'torch': ..., 'device': ..., 'threads': ..., 'commit': ...}; commit ends in '+' when files were changed."""
    def git(*args: str) -> str:
        done = subprocess.run(['git', *args], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
        return done.stdout.strip()
    cuda = torch.cuda.is_available()
    return {
        'python': platform.python_version(), 'torch': torch.__version__,
        'device': torch.cuda.get_device_name() if cuda else platform.machine(), 'threads': torch.get_num_threads(),
        'commit': git('rev-parse', '--short', 'HEAD') + ('+' if git('status', '--porcelain', '-uno') else ''),
    }
