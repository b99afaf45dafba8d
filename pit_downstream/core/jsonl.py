"""Append-only files of JSON lines that survive kill -9, power loss, a full disk and several writers."""

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pit_downstream.core.path_checks import name_failures
from pit_downstream.core.spec import quote

PATIENCE = 300.  # seconds; a writer holds the lock for the time of one write and fsync

_log = logging.getLogger(__name__)


class JsonLines:
    """Objects, one a line. Lines of a call of append() that returned stay; a torn last line is dropped with a warning.

    Several processes on one or several machines may append to one file: each append holds the lock of PATH.lock. That
    is flock(2), which the kernel releases when the process ends. Linux translates it on NFS to a lock of the server,
    so it holds between machines; where a file system has no flock(2), filelock falls back to a lock file with the
    holder's host and process id. Reading needs no lock and no permission to write.

    path: the file, made with its folders by the first append().
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._lock = FileLock(f'{path}.lock')

    def append(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Append all in one write and wait until they are on the disk; none of them where that fails.

        Raises:
            OSError: The disk is full, the place is read-only, or another process holds the lock for five minutes.
        """
        lines = ''.join(json.dumps(one) + '\n' for one in objects).encode()
        with self.locked(), name_failures(self.path):
            is_new = not self.path.exists()
            with self.path.open('a+b', buffering=0) as file:
                end = self._cut_torn_line(file.fileno())
                try:
                    _write(file.fileno(), lines)
                except OSError:
                    os.truncate(file.fileno(), end)
                    raise
            if is_new:
                _sync_folder(self.path.parent)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other writers out; append() may be called inside."""
        if self.path.exists() and not self.path.is_file():
            raise ValueError(f'expected a file of JSON lines, got {self.path}, which is none; name another one')
        with name_failures(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock = self._lock.acquire(timeout=PATIENCE)
            except Timeout as error:
                raise TimeoutError(f'another process has held {self.path}.lock for {PATIENCE:.0f} seconds. End that '
                                   'process, or name another folder') from error
        with lock:
            yield

    def read(self) -> list[bytes]:
        """The lines in the order of the file; [] where there is no file yet."""
        text = self.path.read_bytes() if self.path.is_file() else b''
        *lines, torn = text.split(b'\n')
        if torn:
            _log.warning('%s: dropped a torn last line: %s', self.path, quote(torn))
        return lines

    def _cut_torn_line(self, handle: int) -> int:
        """Cut what a killed write left behind the last line end; returns the size of the rest."""
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b'\n':
            size = self.path.read_bytes().rfind(b'\n') + 1
            os.truncate(handle, size)
        return size


def _write(handle: int, content: bytes) -> None:
    while content:  # a disk that fills takes a part first
        content = content[os.write(handle, content):]
    os.fsync(handle)


def _sync_folder(folder: Path) -> None:
    """Make a new file's name survive a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
