"""Custom shifted datasets: one folder per class, with the names of the clean images' class folders."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from pit_downstream.utils.digests import digest_text
from pit_downstream.utils.spec import Spec, Value
from pit_downstream.datasets.base import View
from pit_downstream.datasets.folders import folders_in, images_in
from pit_downstream.datasets.imagenet_shifts import within
from pit_downstream.datasets.labelsets import Classes
from pit_downstream.datasets.shift import Shift, answered

PREFIX = 'shift_'  # prefix of the names of custom datasets


@dataclass(frozen=True)
class CleanReference:
    """Clean images of a custom shift.

    root: folder of the class folders. name: of the records of the clean images. classes: of the model, matched to
    folders.
    """

    root: Path
    name: str
    classes: Classes = field(default_factory=Classes)


def own_shift(name: str, root: str | Path, clean: CleanReference, *, view: View) -> Shift:
    """Load a custom shift: root/<class>/*, with all or some of the class folders of the clean images.

    The name of its records identifies the reference for comparison: 'clean' is the digest of the clean images' files.
    'classes' is the digest of the class indices, present if only clean images of some classes are the reference.
    """
    root = Path(root)
    if not re.fullmatch(f'{PREFIX}[a-z0-9_]+', name):
        raise ValueError(f'expected a name such as {PREFIX}fog, of small letters, digits and _, got {name!r}')
    if root.resolve() == clean.root.resolve():
        raise ValueError(f'expected other images than the clean ones for {name}, got {root} for both')
    known = _classes(clean.root)
    indices = clean.classes.indices(folders_in(clean.root), known)
    unknown = [folder for folder in _classes(root) if folder not in known]
    if unknown:
        raise ValueError(f'expected in {root} folders named by classes that have images in {clean.root}, got '
                         f'{", ".join(unknown[:3])}{" ..." * (len(unknown) > 3)}')
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
    """Return the folders in `root` that contain images."""
    return [folder for folder in folders_in(root) if images_in(root / folder)]
