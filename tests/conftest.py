"""What several rooms of the suite share: a handful of bundled images, and the messages of mmengine's logger."""

import logging
import os
import runpy
import subprocess as subprocesses
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pit_downstream.datasets.shapes import write_shapes


@pytest.fixture(scope='session')
def few_shapes(tmp_path_factory):
    """A folder of bundled images: 16 to train on, 4 to validate."""
    return write_shapes(tmp_path_factory.mktemp('few') / 'shapes', train=16, val=4,
                        classification_train=6, classification_val=6)


@pytest.fixture
def logged():
    """The messages that mmengine's current logger gets during the test, as a list that grows."""
    from mmengine.logging import MMLogger
    messages, handler, logger = [], logging.Handler(), MMLogger.get_current_instance()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def _drop_message_hubs():
    if 'mmengine.logging' in sys.modules:
        from mmengine.logging import MessageHub
        MessageHub._instance_dict.clear()


@pytest.fixture(autouse=True)
def separate_runs():
    """Drop mmengine's training histories after each test.

    mmengine names a run by config and second: two runs of one config in one process and second share a history.
    """
    yield
    _drop_message_hubs()


REPO = Path(__file__).parents[1]


@dataclass
class ToolResult:
    """Exit code and output of a tool."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_tool(tmp_path, monkeypatch, capfd):
    """Run a tool as a user does: run_tool('eval_coco_c.py', *flags) -> ToolResult.

    The tool runs in this process, in `cwd` (default: an empty folder with a link to configs/). subprocess=True starts
    a process of its own, for signals, ranks and imports; start=[...] replaces the interpreter, as for torchrun.
    env: environment variables that are added.
    """
    def run(name, *flags, cwd=None, subprocess=False, start=(), env=None, timeout=560):
        if cwd is None:
            cwd = tmp_path
            if not (tmp_path / 'configs').exists():
                (tmp_path / 'configs').symlink_to(REPO / 'configs')
        command = [str(REPO / 'tools' / name), *map(str, flags)]
        if subprocess or start:
            paths = os.pathsep.join(filter(None, [str(REPO), os.environ.get('PYTHONPATH')]))  # modules of tests/, too
            environment = {**os.environ, 'PYTHONPATH': paths, **(env or {})}
            process = subprocesses.run([*(start or [sys.executable]), *command], cwd=cwd, capture_output=True,
                                       text=True, timeout=timeout, env=environment)
            return ToolResult(process.returncode, process.stdout, process.stderr)
        capfd.readouterr()
        _drop_message_hubs()
        with monkeypatch.context() as patch:
            patch.chdir(cwd)
            patch.setattr('sys.argv', command)
            for key, value in (env or {}).items():
                patch.setenv(key, value)
            code = 0
            try:
                runpy.run_path(command[0], run_name='__main__')
            except SystemExit as end:
                code = end.code or 0
        return ToolResult(code, *capfd.readouterr())
    return run
