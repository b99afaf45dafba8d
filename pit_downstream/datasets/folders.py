"""Listing of image folders, with warnings about ignored entries."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pit_downstream.utils.errors import InputError

SUFFIXES = ('.jpeg', '.jpg', '.jpe', '.jfif', '.png', '.bmp', '.webp', '.avif', '.jp2', '.gif', '.ppm', '.pgm', '.pbm',
            '.pnm', '.tif', '.tiff')

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """Entries of a folder, sorted by name: images, folders, hidden entries (and `__MACOSX`), other files."""

    images: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def scan_folder(folder: str | Path) -> Listing:
    """List the entries of `folder`. Raises InputError if it does not exist."""
    if not os.path.isdir(folder):
        raise InputError(f'expected a folder at {folder}, found none; check --data')
    found = Listing()
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith('.') or entry.name == '__MACOSX':
                kind = found.hidden
            elif entry.is_dir():
                kind = found.folders
            else:
                kind = found.images if entry.name.lower().endswith(SUFFIXES) else found.others
            kind.append(entry.name)
    return found


def list_images(folder: str | Path) -> list[str]:
    """Return the sorted names of the images directly in `folder`, without hidden files."""
    return scan_folder(folder).images


def list_folders(folder: str | Path) -> list[str]:
    """Return the sorted names of the visible folders in `folder`."""
    return scan_folder(folder).folders


def list_images_by_class(root: Path, folders: Iterable[str]) -> dict[str, list[str]]:
    """Return the image names in each of the class folders `folders` below `root`.

    Hidden files, other files, folders without images and images in deeper folders are ignored. One warning counts and
    names them. Raises InputError if a class folder has images in deeper folders only.
    """
    listings = {folder: scan_folder(root / folder) for folder in folders}
    deeper = {f'{folder}/{inner}': len(scan_folder(root / folder / inner).images)
              for folder, listing in listings.items() for inner in listing.folders}
    deeper = {folder: count for folder, count in deeper.items() if count}
    nested = [folder for folder, listing in listings.items()
              if not listing.images and any(inner.startswith(f'{folder}/') for inner in deeper)]
    if nested:
        raise InputError(f'{len(nested)} of {len(listings)} class folders in {root} have their images one level '
                         f'deeper: {format_names([inner for inner in deeper if inner.split("/")[0] in nested])}. Move '
                         'the '
                         'images up, or give the folder that has the class folders.')
    top = scan_folder(root)
    warn_ignored(root, {
        'hidden': _join_paths({'': top.hidden} | {folder: listing.hidden for folder, listing in listings.items()}),
        'no image': _join_paths({'': top.others} | {folder: listing.others for folder, listing in listings.items()}),
        'outside the class folders': top.images, 'in deeper folders': list(deeper),
        'class folders without images': [folder for folder, listing in listings.items() if not listing.images]},
        counts={'in deeper folders': sum(deeper.values())})
    return {folder: listing.images for folder, listing in listings.items()}


def warn_ignored(root: Path, names: Mapping[str, list[str]], *, counts: Mapping[str, int] | None = None) -> None:
    """Log one warning that counts and names the ignored entries of `root`.

    names: by reason. counts: by reason, if different from the number of names.
    """
    parts = [f'{(counts or {}).get(reason, len(some))} {reason} ({format_names(some)})' for reason,
             some in names.items()
             if some]
    if parts:
        warn_once(f'ignored in {make_printable(str(root))}: {"; ".join(parts)}')


@cache
def warn_once(text: str) -> None:
    """Log a warning once per process, on torchrun's rank 0 only."""
    if os.environ.get('RANK', '0') == '0':
        _log.warning('%s', text)


def format_names(names: Sequence[str], most: int = 4) -> str:
    """Return the first names and the number of remaining ones."""
    text = ', '.join(make_printable(name) for name in names[:most])
    return f'{text} and {len(names) - most} more' if len(names) > most else text


def _join_paths(names: Mapping[str, list[str]]) -> list[str]:
    return [f'{folder}/{name}' if folder else name for folder, some in names.items() for name in some]


def make_printable(text: str) -> str:
    """Return `text` with non-UTF-8 bytes escaped, such as \\xe9."""
    return text.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')
