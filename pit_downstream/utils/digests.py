"""Content digests of files, which identify a dataset. Hashes are cached, so a second run only calls stat()."""

import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

DIGITS = 16  # hex digits of every digest

_UNSETTLED = 2.0  # seconds; a newer file may change again with the same timestamps, so it is not cached
_CHUNK = 500  # rows per query; SQLite limits the number of variables
_SCHEMA = ('CREATE TABLE IF NOT EXISTS digests (path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, '
           'ctime_ns INTEGER, inode INTEGER, digest TEXT) WITHOUT ROWID')

Fingerprint = tuple[int, int, int, int]

_log = logging.getLogger(__name__)


def hash_text(*lines: str) -> str:
    """Return the first 16 hex digits of the SHA-256 of `lines`."""
    return hashlib.sha256('\n'.join(lines).encode('utf-8', 'surrogateescape')).hexdigest()[:DIGITS]


def hash_bytes(content: bytes) -> str:
    """Return the first 16 hex digits of the SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def hash_file(path: str | Path) -> str:
    """Return the first 16 hex digits of the SHA-256 of a file's content. Raises OSError for an unreadable file."""
    return hash_files([path])[0]


def hash_files(paths: Sequence[str | Path], *, unreadable: str | None = None) -> list[str]:
    """Return the digest of each file's content, in order.

    A digest is read from a cache if path, size, inode and both times of the file are unchanged. The cache is a
    SQLite file in $XDG_CACHE_HOME/pit_downstream (default ~/.cache). Without a writable cache all files are read.
    Work of more than a few seconds is reported on stderr.

    Args:
        paths: The files.
        unreadable: Result for a file that is missing or cannot be read. None: such a file is an error.

    Raises:
        OSError: A file is missing or unreadable, and `unreadable` is None.
    """
    keys = [os.fsencode(os.path.abspath(path)) for path in paths]
    stats = {key: status for key in dict.fromkeys(keys) if (status := _get_fingerprint(key, unreadable)) is not None}
    cached = _read_cache(stats)
    missing = [key for key in stats if key not in cached]
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:  # hashlib releases the GIL
        digests = pool.map(_read_and_hash, missing, [unreadable] * len(missing))
        computed = dict(zip(missing, _report_progress(digests, len(missing)), strict=True))
    _write_cache({key: (stats[key], digest) for key, digest in computed.items() if digest != unreadable})
    return [cached.get(key) or computed.get(key) or str(unreadable) for key in keys]


def get_cache_path() -> Path:
    """Return the path of the SQLite file that keeps digests."""
    root = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return Path(root, 'pit_downstream', 'digests.sqlite').absolute()


def _report_progress(digests: Iterable[str], count: int) -> Iterator[str]:
    """Yield `digests`. Log how many of `count` are done, after 3 seconds and then every 10."""
    due = time.monotonic() + 3
    for done, digest in enumerate(digests):
        if time.monotonic() > due:
            _log.warning('hashing the content of files: %d of %d done (later runs read the cache)', done, count)
            due = time.monotonic() + 10
        yield digest


def _get_fingerprint(path: bytes, unreadable: str | None = None) -> Fingerprint | None:
    """Return size, mtime_ns, ctime_ns and inode. A rename keeps the mtime, but changes the ctime.

    None for a missing file where `unreadable` is given.
    """
    try:
        status = os.stat(path)
    except OSError:
        if unreadable is None:
            raise
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _read_and_hash(path: bytes, unreadable: str | None = None) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, 'rb') as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        if unreadable is None:
            raise
        return unreadable
    return digest.hexdigest()[:DIGITS]


def _read_cache(stats: dict[bytes, Fingerprint]) -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    with _open_cache() as cache:
        if cache is None:
            return found
        for chunk in _split_into_chunks(list(stats), _CHUNK):
            marks = ', '.join('?' * len(chunk))
            for path, *fingerprint, digest in cache.execute(f'SELECT * FROM digests WHERE path IN ({marks})', chunk):
                if tuple(fingerprint) == stats[path]:
                    found[path] = digest
    return found


def _write_cache(entries: dict[bytes, tuple[Fingerprint, str]]) -> None:
    now = time.time()
    rows = [(path, *fingerprint, digest) for path, (fingerprint, digest) in entries.items()
            if now - max(fingerprint[1], fingerprint[2]) / 1e9 > _UNSETTLED
            and _get_fingerprint(path, '') == fingerprint]
    if not rows:
        return
    with _open_cache() as cache:
        if cache is not None:
            cache.executemany('INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?)', rows)
            cache.commit()


@contextmanager
def _open_cache() -> Iterator[sqlite3.Connection | None]:
    """Open the cache, or yield None on failure. A later failure of the cache never affects a result."""
    connection = None
    try:
        get_cache_path().parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(get_cache_path(), timeout=30)
        connection.execute(_SCHEMA)
    except (OSError, sqlite3.Error) as error:
        _log.debug('cannot open the digest cache %s: %s', get_cache_path(), error)
    try:
        yield connection
    except sqlite3.Error as error:  # a full disk, a damaged file, a lock held for longer than the timeout
        _log.debug('the digest cache %s failed: %s', get_cache_path(), error)
    finally:
        if connection is not None:
            connection.close()


def _split_into_chunks(items: list[bytes], size: int) -> Iterable[list[bytes]]:
    return (items[start:start + size] for start in range(0, len(items), size))
