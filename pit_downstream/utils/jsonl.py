"""Append-only JSON Lines files that survive kill -9, power loss, a full disk and concurrent writers."""

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.path_checks import name_failures
from pit_downstream.utils.spec import quote

PATIENCE = 300.  # seconds; a writer holds the lock for the time of one write and fsync

_log = logging.getLogger(__name__)


class JsonLines:
    """A JSON Lines file. Lines are durable once append() returns. A torn last line is dropped with a warning.

    Several processes on several machines may append to one file. Each append holds the lock of PATH.lock. The lock is
    flock(2), which the kernel releases when the process ends. On NFS, Linux translates it to a lock of the server, so
    it holds between machines. On a file system without flock(2), filelock falls back to a lock file with the holder's
    host and process id. Reading needs neither the lock nor write permission.

    The first append() creates the file and its folders.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._lock = FileLock(f'{path}.lock')

    def append(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Append all objects in one write and wait until they are on the disk. On failure, append none.

        Raises:
            OSError: The disk is full, the path is read-only, or another process holds the lock for five minutes.
        """
        lines = ''.join(json.dumps(one) + '\n' for one in objects).encode()
        with self.lock(), name_failures(self.path):
            is_new = not self.path.exists()
            with self.path.open('a+b', buffering=0) as file:
                end = self._truncate_torn_line(file.fileno())
                try:
                    _write(file.fileno(), lines)
                except OSError:
                    os.truncate(file.fileno(), end)
                    raise
            if is_new:
                _sync_folder(self.path.parent)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the file against other writers. append() may be called inside."""
        if self.path.exists() and not self.path.is_file():
            raise InputError(f'expected a file of JSON lines, got {self.path}, which is none; name another one')
        with name_failures(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock = self._lock.acquire(timeout=PATIENCE)
            except Timeout as error:
                raise InputError(f'another process has held {self.path}.lock for {PATIENCE:.0f} seconds. End that '
                                 'process, or name another folder') from error
        with lock:
            yield

    def __iter__(self) -> Iterator[bytes]:
        """Yield the lines in file order, none if the file does not exist."""
        if not self.path.is_file():
            return
        with self.path.open('rb') as file:
            for line in file:
                if line.endswith(b'\n'):
                    yield line[:-1]
                else:
                    _log.warning('%s: dropped a torn last line: %s', self.path, quote(line))

    def read(self) -> list[bytes]:
        """Return the lines in file order, [] if the file does not exist."""
        return list(self)

    def _truncate_torn_line(self, handle: int) -> int:
        """Remove an incomplete last line and return the remaining size."""
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b'\n':
            size = self.path.read_bytes().rfind(b'\n') + 1
            os.truncate(handle, size)
        return size


def _write(handle: int, content: bytes) -> None:
    while content:  # a disk that fills up may write only a part
        content = content[os.write(handle, content):]
    os.fsync(handle)


def _sync_folder(folder: Path) -> None:
    """Flush the folder, so that a new file's name survives a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
