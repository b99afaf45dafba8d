"""Checks of output paths, made before any work, so that no result is lost."""

import os
import tempfile
from pathlib import Path


def require_folder_to_write(folder: str | Path, flag: str) -> None:
    """Raise ValueError unless files can be made in `folder`, or the folder itself where it is not there yet.

    flag: of the command line, for the message. Nothing is left behind.
    """
    folder = Path(folder)
    there = next(place for place in (folder, *folder.parents, Path()) if place.exists())
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
    if not path.exists():
        require_folder_to_write(path.parent, flag)
    elif not os.access(path, os.W_OK):
        raise ValueError(f'expected a file to write for {flag}, got {path}, which is read-only; name another one')


def path_inside(folder: str | Path, name: str) -> Path:
    """Return the path of the output file `name`, which comes from data, inside `folder`.

    Raises:
        ValueError: The file would be outside of `folder`: `name` is absolute, contains '..' or passes a symbolic link.
    """
    path = Path(folder, name)
    root = Path(os.path.realpath(folder))
    if '\0' in name or root not in Path(os.path.realpath(path)).parents:
        raise ValueError(f'A file name in the data leaves the output folder {folder}: {name[:200]!r}. Rename the file, '
                         'or remove symbolic links from the folder.')
    return path
