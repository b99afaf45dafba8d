"""A shifted dataset of one's own: a folder for each class, beside clean images with folders of the same names."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from pit_downstream.core.digests import digest_text
from pit_downstream.core.spec import Spec, Value
from pit_downstream.datasets.base import View
from pit_downstream.datasets.folders import folders_in, images_in
from pit_downstream.datasets.imagenet_shifts import within
from pit_downstream.datasets.labelsets import Classes
from pit_downstream.datasets.shift import Shift, answered

PREFIX = 'shift_'  # of the names that no published dataset has


@dataclass(frozen=True)
class CleanReference:
    """The clean images: their folder of class folders, the name under which their records are kept, and the classes
    of the model, to which the folders are matched."""

    root: Path
    name: str
    classes: Classes = field(default_factory=Classes)


def own_shift(name: str, root: str | Path, clean: CleanReference, *, view: View) -> Shift:
    """root/<class>/*, of classes that have clean images in folders of the same names; not all of them need be there.

    What it is to be compared with stands in the name of its records: 'clean', the digest of the clean images' files,
    and 'classes', that of its class indices, where it is the error on the clean images of these classes alone.
    """
    root = Path(root)
    if not re.fullmatch(f'{PREFIX}[a-z0-9_]+', name):
        raise ValueError(f'expected a name such as {PREFIX}fog, of small letters, digits and _, got {name!r}')
    if root.resolve() == clean.root.resolve():
        raise ValueError(f'expected other images than the clean ones for {name}, got {root} for both')
    known = _classes(clean.root)
    indices = clean.classes.indices(folders_in(clean.root), known)
    strange = [folder for folder in _classes(root) if folder not in known]
    if strange:
        raise ValueError(f'expected in {root} folders named by classes that have images in {clean.root}, got '
                         f'{", ".join(strange[:3])}{" ..." * (len(strange) > 3)}')
    folders = {folder: (indices[folder],) for folder in _classes(root)}
    place, files = '/'.join(root.resolve().parts[-2:]), Spec.parse(clean.name).get('files')
    words: dict[str, Value] = {'root': place, 'clean': files}
    on_clean = {}
    if len(folders) < len(known):
        there = sorted(index for (index,) in folders.values())
        words['classes'] = digest_text(repr(there))
        on_clean = {f'top1_error_of_{words["classes"]}': within(there)}
    return Shift(answered(root, folders, name, view, **words), on_clean=on_clean)


def _classes(root: Path) -> list[str]:
    """The folders in `root` that have images."""
    return [folder for folder in folders_in(root) if images_in(root / folder)]
