"""A shifted data set of one's own: a folder for each class, beside clean pictures with folders of the same names."""

import re
from dataclasses import dataclass
from pathlib import Path

from ..core.spec import Spec
from .base import View, folders_in, pictures_in
from .labelsets import class_indices
from .shift import Shift, answered

PREFIX = 'shift_'  # of the names that no published data set has


@dataclass(frozen=True)
class Clean:
    """The clean pictures: their folder of class folders, and the name under which their records are kept."""

    root: Path
    name: str


def own_shift(name: str, root: str | Path, clean: Clean, *, view: View) -> Shift:
    """root/<class>/*, with pictures of the same classes as the clean ones: the two errors ask the same question.

    The name in records says by 'clean', the digest of the clean pictures' files, with what it is to be compared.
    """
    root = Path(root)
    if not re.fullmatch(f'{PREFIX}[a-z0-9_]+', name):
        raise ValueError(f'expected a name such as {PREFIX}fog, of small letters, digits and _, got {name!r}')
    if not root.is_dir():
        raise FileNotFoundError(f'expected a folder at {root}, found none; check --shifts {name}=DIR')
    if root.resolve() == clean.root.resolve():
        raise ValueError(f'expected other pictures than the clean ones for {name}, got {root} for both')
    indices, there = class_indices(_classes(clean.root)), _classes(root)
    if strange := sorted(set(there) ^ indices.keys()):
        raise ValueError(f'expected in {root} pictures of the same classes as in {clean.root}, in folders of the same '
                         f'names; {", ".join(strange[:3])}{" ..." * (len(strange) > 3)} '
                         f'{"is" if len(strange) == 1 else "are"} in one of them alone')
    return Shift(answered(root, {folder: (indices[folder],) for folder in there}, name, view,
                          root='/'.join(root.resolve().parts[-2:]), clean=Spec.parse(clean.name).get('files')))


def _classes(root: Path) -> list[str]:
    """The folders in `root` that have pictures."""
    return [folder for folder in folders_in(root) if pictures_in(root / folder)]
