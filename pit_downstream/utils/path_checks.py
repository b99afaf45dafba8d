"""Output files: paths are checked before any work, and files are written atomically."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import quote


def require_writable_folder(folder: str | Path, flag: str) -> None:
    """Raise InputError unless files can be created in `folder`, which may not exist yet.

    `flag` is the command-line flag for the message. The check leaves no files behind.
    """
    folder = Path(folder)
    there = next(place for place in (folder, *folder.parents, Path()) if os.path.lexists(place))
    try:
        with tempfile.TemporaryDirectory(dir=there):
            pass
    except OSError as error:
        raise InputError(f'expected a folder to write to for {flag}, got {folder}: {error.strerror} in {there}; name '
                         'another one') from error


def require_writable_file(path: str | Path, flag: str) -> None:
    """Raise InputError unless the file `path` can be written. Its folder must exist."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f'expected a file to write for {flag}, got the folder {path}; name a file')
    if not path.parent.is_dir():
        raise InputError(f'expected a file to write for {flag} in a folder that is there, got {path}; make the folder '
                         f'{path.parent} or name another one')
    target = path.resolve()
    if path.exists() and not os.access(path, os.W_OK):
        raise InputError(f'expected a file to write for {flag}, got {path}, which is read-only; name another one')
    if target.is_file() or not path.exists():  # a device or a pipe is written in place
        require_writable_folder(target.parent, flag)


def require_image_to_write(path: str | Path, flag: str) -> None:
    """Raise InputError unless an image file can be written to `path`, in a folder that exists or can be created."""
    from PIL import Image
    path, suffixes = Path(path), Image.registered_extensions()
    if suffixes.get(path.suffix.lower()) not in Image.SAVE or path.is_dir():
        raise InputError(f'{flag} must be an image file, got {path}. Pass a name like detections.png.')
    require_writable_folder(path.parent, flag)


def resolve_inside(folder: str | Path, name: str) -> Path:
    """Return the path of the output file `name`, which comes from data, inside `folder`.

    Raises:
        InputError: The file would be outside `folder`: `name` is absolute, contains '..' or passes a symbolic link.
    """
    path = Path(folder, name)
    root = Path(os.path.realpath(folder))
    if '\0' in name or root not in Path(os.path.realpath(path)).parents:
        raise InputError(f'A file name in the data leaves the output folder {folder}: {quote(name)}. Rename the file, '
                         'or remove symbolic links from the folder.')
    return path


@contextlib.contextmanager
def replace_atomically(path: str | Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield the path of a temporary file that replaces `path` when the block succeeds.

    The temporary file has the suffix of `path`. After a failed block, a full disk or a killed process, the old file at
    `path` is unchanged. A device or pipe is written in place. For a symbolic link, the target is replaced. Folders of
    `path` are created. With `sync`, the content is flushed to disk and survives a power loss. False is faster for
    thousands of small files.

    Raises:
        OSError: `path` cannot be written. The error contains its name.
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
    """Write a file by `replace_atomically`, text as UTF-8 with surrogateescape.

    Pass the output of torch.save and numpy.save through an io.BytesIO. On a full disk they raise errors without a
    reason.
    """
    with replace_atomically(path, sync=sync) as new:
        new.write_bytes(content.encode('utf-8', 'surrogateescape') if isinstance(content, str) else content)


@contextlib.contextmanager
def name_failures(path: str | Path) -> Iterator[None]:
    """Add the file name `path` to an OSError raised in the block, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
