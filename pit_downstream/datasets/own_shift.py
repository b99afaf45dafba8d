"""A shifted data set of one's own: a folder for each class, beside clean pictures with folders of the same names."""

import re
from pathlib import Path

from .base import View, folders_in
from .imagenet_shifts import within
from .labelsets import class_indices
from .shift import Shift, answered, recognise

PREFIX = 'shift_'  # of the names that no published data set has


def own_shift(name: str, root: str | Path, clean: str | Path, *, view: View) -> Shift:
    """root/<class>/*, where `clean` has folders of the same names; classes may be lacking, no other may be there.

    A prediction is chosen among all classes of the model; the matching clean error is that on the classes of `root`.
    """
    root, clean = Path(root), Path(clean)
    if not re.fullmatch(f'{PREFIX}[a-z0-9_]+', name):
        raise ValueError(f'expected a name such as {PREFIX}fog, of small letters, digits and _, got {name!r}')
    indices, names = class_indices(folders_in(clean)), folders_in(root)
    if not names or not set(names) <= indices.keys():
        raise ValueError(f'expected in {root} folders named by the classes of {clean}, which looks like '
                         f'{recognise(clean)}; this looks like {recognise(root)}')
    if root.resolve() == clean.resolve():
        raise ValueError(f'expected other pictures than the clean ones for {name}, got {root} for both')
    folders = {folder: (indices[folder],) for folder in names}
    clean_error = within({index for (index,) in folders.values()})
    return Shift(answered(root, folders, name, view), on_imagenet={f'{name}_clean_error': clean_error})
