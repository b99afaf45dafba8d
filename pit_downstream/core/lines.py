"""Append-only files of JSON lines that survive kill -9 and power loss."""

import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)


class JsonLines:
    """Objects, one a line. What append() returned from stays; a torn last line is dropped, and said.

    path: the file, made with its folders by the first append().
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def append(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Append all in one write and wait until they are on the disk."""
        text = ''.join(json.dumps(one) + '\n' for one in objects)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._drop_torn_line()
        with self.path.open('ab') as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[bytes]:
        """The lines in the order of the file; [] where there is no file yet."""
        text = self.path.read_bytes() if self.path.exists() else b''
        *lines, torn = text.split(b'\n')
        if torn:
            _log.warning('%s: dropped a torn last line: %s', self.path, torn[:80].decode(errors='replace'))
        return lines

    def _drop_torn_line(self) -> None:
        """Cut what a killed write left behind the last line end, so that the next line starts on its own."""
        if not self.path.exists():
            self.path.touch()
            _sync_folder(self.path.parent)
            return
        with self.path.open('rb') as file:
            file.seek(max(0, self.path.stat().st_size - 1))
            if file.read() in (b'', b'\n'):
                return
        os.truncate(self.path, self.path.read_bytes().rfind(b'\n') + 1)


def _sync_folder(folder: Path) -> None:
    """Make a new file's name survive a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
