"""Provenance of a run: versions, commit, device, command, seed. Written once per run, beside its records."""

import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from pit_downstream import __version__
from pit_downstream.utils.jsonl import JsonLines

LIBRARIES = ('torch', 'torchvision', 'timm', 'numpy', 'pillow', 'mmengine', 'mmdet', 'pycocotools',
             'faster-coco-eval')


def collect_provenance(*, device: str, seed: int, argv: Sequence[str] | None = None) -> dict:
    """Return a description of the current run.

    {'started': ISO 8601 in UTC, 'argv': [...], 'device': ..., 'seed': ..., 'commit': ..., 'versions': {...}}. The
    commit is '' outside a git checkout and ends in '+' if files were changed.
    """
    return {
        'started': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'argv': list(sys.argv if argv is None else argv),
        'device': device, 'seed': seed, 'commit': get_commit(),
        'versions': {'pit_downstream': __version__, 'python': platform.python_version(), **get_versions()},
    }


def write_provenance(path: str | Path, run: dict) -> None:
    """Append `run` as one line of JSON to `path`."""
    JsonLines(path).append([run])


def get_versions(libraries: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Return the version of each installed library."""
    found = {}
    for name in libraries:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def get_commit() -> str:
    folder = Path(__file__).parent
    head = _run_git('rev-parse', '--short', 'HEAD', folder=folder)
    return head and head + ('+' if _run_git('status', '--porcelain', '-uno', folder=folder) else '')


def _run_git(*args: str, folder: Path) -> str:
    try:
        done = subprocess.run(['git', *args], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # git is not installed
        return ''
    return done.stdout.strip() if done.returncode == 0 else ''
