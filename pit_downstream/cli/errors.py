"""Exit of a tool: one sentence and exit code 2 for bad input, one line and 130 or 143 for a signal."""

import argparse
import contextlib
import errno
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.slurm import get_env_rank, get_env_world_size, get_step_env

SIGNALS = {signal.SIGINT: 'interrupted', signal.SIGTERM: 'terminated'}
RESOURCE_ERRNOS = {  # a path that cannot be written or read, raised by any library
    errno.ENOENT, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.ENAMETOOLONG}
MAX_LENGTH = 2000  # characters of a message
RANK_SECONDS = 60.  # maximum seconds between ranks that end for one reason


class DebugAction(argparse.Action):
    """`--debug`: show the traceback of every error."""

    enabled = False

    def __call__(self, parser, namespace, values, option_string=None):
        DebugAction.enabled = namespace.debug = True


def add_debug_flag(parser: Any) -> None:
    """Add `--debug` to a parser or an argument group."""
    parser.add_argument('--debug', action=DebugAction, nargs=0, default=False,
                        help='show the traceback of every error (default: the message alone)')


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """End the tool with the message of an InputError and exit code 2.

    A full disk, missing permissions and a killed worker end it the same way. SIGINT and SIGTERM end it with one line
    and exit code 130 or 143; a second signal ends it at once. Any other error is a bug, here or in a library, and shows
    its traceback; with --debug every error does. Of several ranks on one machine only the first to end prints. The
    others have the same error, or one that follows from it, such as a closed connection.
    """
    DebugAction.enabled = False
    with _raised_signals() as received:
        try:
            yield
        except (ValueError, LookupError, OSError, ImportError, RuntimeError, KeyboardInterrupt) as error:
            if DebugAction.enabled:
                raise
            if not received:  # a worker ended by the signal raises another error here
                message = _message(error)
                if message is None and not (isinstance(error, RuntimeError) and _other_rank_ended()):
                    raise
                _end(message or '', 2)
        if received:
            _end(SIGNALS[received[0]], 128 + received[0])


@contextlib.contextmanager
def _raised_signals() -> Iterator[list[signal.Signals]]:
    """Raise KeyboardInterrupt for SIGINT and SIGTERM, and list them.

    Forked workers ignore SIGINT, which Ctrl-C also sends to them, and end at SIGTERM.
    """
    received: list[signal.Signals] = []

    def note(number, frame):
        received.append(signal.Signals(number))
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, note) for number in SIGNALS}
    _caught.update(SIGNALS)
    try:
        yield received
    finally:
        _caught.clear()
        if not received:
            for number, handler in before.items():
                signal.signal(number, handler)


# Signals with a handler of this module. Forked workers must not keep it: a worker that receives SIGTERM just before it
# waits for a lock or a pipe would run the handler only after the wait, which never ends. The pool would then hang.
_caught: set[signal.Signals] = set()


def _reset_signals() -> None:
    """Restore the default SIGTERM and ignore SIGINT in a forked worker."""
    if _caught:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


os.register_at_fork(before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]),
                    after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM]),
                    after_in_child=_reset_signals)


def _end(message: str, code: int) -> None:
    """Exit with `code`; print the message unless another rank has already ended."""
    if not _other_rank_ended():
        print(_shorten(message), file=sys.stderr, flush=True)
    raise SystemExit(code)


def _other_rank_ended() -> bool:
    """Return whether another rank of this run has called this function on this machine in the last minute.

    Ranks have one parent, an agent of torchrun or Slurm. The mark is an empty file in the temporary folder, because
    there may be no connection between the ranks yet or any more.
    """
    if get_env_world_size() < 2:
        return False
    from pit_downstream.utils.digests import hash_text
    env = {**os.environ, **get_step_env()}
    run = hash_text(str(os.getppid()), *(env.get(name, '') for name in (
        'MASTER_ADDR', 'MASTER_PORT', 'TORCHELASTIC_RUN_ID', 'TORCHELASTIC_RESTART_COUNT')))
    mark = Path(tempfile.gettempdir(), f'pit_downstream-{run}')
    try:
        if mark.exists() and time.time() - mark.stat().st_mtime > RANK_SECONDS:
            mark.unlink()
        mark.touch(exist_ok=False)
    except FileExistsError:
        return True
    except OSError:  # a full or read-only disk
        return get_env_rank() != 0
    return False


def _shorten(message: str) -> str:
    """Cut long quotes to their first 200 characters, other long words, such as paths, to the first and last 100."""
    message = re.sub(r"""(['"])((?:(?!\1).){200})(?:(?!\1).)+\1""", r'\1\2\1...', message, flags=re.DOTALL)
    message = re.sub(r"""([^\s'"]{100})[^\s'"]{10,}([^\s'"]{100})""", r'\1...\2', message)
    return message if len(message) <= MAX_LENGTH else f'{message[:MAX_LENGTH]}...'


def _message(error: BaseException) -> str | None:
    """Return the message for the user, None for a bug."""
    if isinstance(error, InputError):
        return str(error)
    cause: BaseException | None = error
    while cause is not None:  # torch.save raises a RuntimeError while it handles the OSError
        if isinstance(cause, OSError) and cause.errno in RESOURCE_ERRNOS:
            what = f'cannot use {cause.filename}: {cause.strerror}' if cause.filename else cause.strerror
            return f'{what}. Free space, change permissions or name another place.'
        cause = cause.__context__
    if str(error).startswith('DataLoader worker'):
        return ('a worker process that loads data was killed, usually because memory or /dev/shm is too small. Use '
                f'fewer workers or smaller batches. ({str(error)[:200]})')
    return None
