"""Output files: places are checked before any work, and files are written whole or not at all."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pit_downstream.core.spec import quote


def require_folder_to_write(folder: str | Path, flag: str) -> None:
    """Raise ValueError unless files can be made in `folder`, or the folder itself where it is not there yet.

    flag: of the command line, for the message. Nothing is left behind.
    """
    folder = Path(folder)
    there = next(place for place in (folder, *folder.parents, Path()) if os.path.lexists(place))
    try:
        with tempfile.TemporaryDirectory(dir=there):
            pass
    except OSError as error:
        raise ValueError(f'expected a folder to write to for {flag}, got {folder}: {error.strerror} in {there}; name '
                         'another one') from error


def require_file_to_write(path: str | Path, flag: str) -> None:
    """Raise ValueError unless the file `path` can be written, in a folder that is there."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f'expected a file to write for {flag}, got the folder {path}; name a file')
    if not path.parent.is_dir():
        raise ValueError(f'expected a file to write for {flag} in a folder that is there, got {path}; make the folder '
                         f'{path.parent} or name another one')
    target = path.resolve()
    if path.exists() and not os.access(path, os.W_OK):
        raise ValueError(f'expected a file to write for {flag}, got {path}, which is read-only; name another one')
    if target.is_file() or not path.exists():  # a device or a pipe is written in place
        require_folder_to_write(target.parent, flag)


def path_inside(folder: str | Path, name: str) -> Path:
    """Return the path of the output file `name`, which comes from data, inside `folder`.

    Raises:
        ValueError: The file would be outside of `folder`: `name` is absolute, contains '..' or passes a symbolic link.
    """
    path = Path(folder, name)
    root = Path(os.path.realpath(folder))
    if '\0' in name or root not in Path(os.path.realpath(path)).parents:
        raise ValueError(f'A file name in the data leaves the output folder {folder}: {quote(name)}. Rename the file, '
                         'or remove symbolic links from the folder.')
    return path


@contextlib.contextmanager
def atomic_path(path: str | Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield the path of a new file with the suffix of `path`, which takes its place where the block ends well.

    A block that fails, a full disk and a killed process leave the old file at `path`. A device or a pipe is written in
    place; the target of a symbolic link is replaced. Folders of `path` are made. sync: wait until the content is
    on the disk, so that it survives a power loss; False is faster for thousands of small files.

    Raises:
        OSError: With the name of `path`, where it cannot be written.
    """
    with name_failures(path):
        target = Path(path).resolve()
        if target.exists() and not target.is_file():
            yield target
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f'.{secrets.token_hex(8)}{target.suffix}')
        try:
            yield new
            if target.exists():
                shutil.copymode(target, new)
            if sync:
                with new.open('rb') as file:
                    os.fsync(file.fileno())
            os.replace(new, target)
        finally:
            new.unlink(missing_ok=True)


def write_atomic(path: str | Path, content: str | bytes | memoryview, *, sync: bool = True) -> None:
    """Write a whole file, text as UTF-8 (with names of files that are not), by `atomic_path`.

    Content of torch.save and numpy.save goes through an io.BytesIO: at a full disk they raise errors without a reason.
    """
    with atomic_path(path, sync=sync) as new:
        new.write_bytes(content.encode('utf-8', 'surrogateescape') if isinstance(content, str) else content)


@contextlib.contextmanager
def name_failures(path: str | Path) -> Iterator[None]:
    """Raise an OSError of the block, such as that of a full disk, with the name of `path` that it lacks."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
