"""Mapping of folder names and labels to class indices."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from pit_downstream.datasets.folders import format_names, warn_once
from pit_downstream.utils.errors import InputError

_NAMES = "Pass --classes FILE: one class name a line, in the order of the model's outputs."
_WNID = re.compile(r'n\d{8}')


@cache
def get_wnid_indices() -> Mapping[str, int]:
    """Return the index in 0..999 by WordNet id, in ImageNet-1k order. The list is timm's."""
    from timm.data import ImageNetInfo
    return MappingProxyType({wnid: index for index, wnid in enumerate(ImageNetInfo().label_names())})


@cache
def get_subset_indices(name: str) -> Mapping[str, int]:
    """Return the index in 0..999 by WordNet id of the 200 classes of 'imagenet_a' or 'imagenet_r'. Lists of timm."""
    wnids = _read_timm_file(f'{name}_synsets.txt').split()
    return MappingProxyType({wnid: get_wnid_indices()[wnid] for wnid in wnids})


@cache
def load_real_labels() -> tuple[tuple[int, ...], ...]:
    """Return the ReaL labels of the 50,000 ImageNet validation images, by number, () for images without a label.

    Class indices are in 0..999. Source: real.json of Beyer et al. 2020, "Are we done with ImageNet?", copied in timm.
    """
    return tuple(map(tuple, json.loads(_read_timm_file('imagenet_real_labels.json'))))


@dataclass(frozen=True)
class Classes:
    """Classes of a model: the number of outputs and the class names, None if unknown.

    Folders are matched by name. If the names are unknown:
    - WordNet ids map to their index in ImageNet-1k, if the model has 1000 outputs.
    - Numbers below the number of outputs are class indices (ImageNet-V2: '0' to '999', '0000' to '0999').
    - Other folders are numbered in sorted order, as in torchvision's ImageFolder, if there are as many as outputs.
    All other cases are an error.
    """

    count: int | None = None
    names: tuple[str, ...] | None = None

    def indices(self, folders: Sequence[str], filled: Collection[str] | None = None) -> dict[str, int]:
        """Return the class index of each folder.

        filled: Folders that contain images (default: all). Empty folders need not be a class of the model.
        Raises InputError if a folder has no class.
        """
        used = [name for name in folders if filled is None or name in filled]
        if self.names is not None and (set(used) <= set(self.names) or not self._is_imagenet(used)):
            return self._match_names(used)
        numeric, wnids = bool(used) and all(map(str.isdecimal, used)), [name for name in used if _WNID.fullmatch(name)]
        if numeric:
            return self._match_numbers(used)
        if wnids and self.count in (None, 1000):
            unknown = [name for name in used if name not in get_wnid_indices()]
            if unknown:
                raise InputError(f'expected the folders of ImageNet-1k, one for each WordNet id, got {len(wnids)} of '
                                 f'them beside {format_names(unknown)}, which are none of the 1000; move these '
                                 'elsewhere')
            return {name: get_wnid_indices()[name] for name in used}
        if self.count is not None and len(folders) != self.count:
            raise InputError(f'the model has {self.count} outputs of unknown classes, got {len(folders)} class '
                             f'folders: {format_names(folders)}. {_NAMES}')
        if self.count is not None:
            warn_once(f'the names of the {self.count} classes are unknown: the folders are numbered in sorted order '
                      f"({format_names(sorted(folders))}), as torchvision's ImageFolder does; --classes FILE sets "
                      "another "
                      'order')
        return {name: index for index, name in enumerate(sorted(folders))}

    def label(self, text: str) -> int:
        """Return the class index of a label: a name, a number or a WordNet id of ImageNet-1k."""
        if self.names is not None and text in self.names:
            return self.names.index(text)
        if text.isdecimal():
            return int(text)
        if self.names is not None and not self._is_imagenet([text]):
            raise InputError(f'the label {text!r} is no class of the model ({format_names(self.names)}). {_NAMES}')
        if text not in get_wnid_indices():
            raise InputError(f'expected a class index or one of the 1000 WordNet ids as label, got {text!r}')
        return get_wnid_indices()[text]

    def _is_imagenet(self, folders: Sequence[str]) -> bool:
        """Return whether the names are ImageNet's and the folders are numbers or its WordNet ids."""
        return self.names == tuple(get_wnid_indices()) and all(
            name.isdecimal() or name in get_wnid_indices() for name in folders)

    def _match_names(self, folders: Sequence[str]) -> dict[str, int]:
        known = {name: index for index, name in enumerate(self.names or ())}
        unknown = [name for name in folders if name not in known]
        if unknown:
            raise InputError(f'{len(unknown)} of {len(folders)} folders are no class of the model: '
                             f'{format_names(unknown)}. '
                             f'Its classes are {format_names(list(known))}. {_NAMES}')
        return {name: known[name] for name in folders}

    def _match_numbers(self, folders: Sequence[str]) -> dict[str, int]:
        count = 1000 if self.count is None else self.count
        indices = {name: int(name) for name in folders}
        unknown = [name for name, index in indices.items() if index >= count]
        if unknown:
            raise InputError(f'folder names that are numbers must be class indices below {count}, got '
                             f'{format_names(unknown)}. {_NAMES}')
        if len(set(indices.values())) < len(indices):
            raise InputError(f'folder names must be different class indices, got {format_names(folders)}. Rename one '
                             'of them.')
        return indices


def sort_training_classes(folders: Sequence[str]) -> tuple[str, ...]:
    """Return the class folders in the order of the outputs of a trained model: sorted, numbers by value."""
    if folders and all(map(str.isdecimal, folders)):
        return tuple(sorted(folders, key=int))
    return tuple(sorted(folders))


def read_classes(path: str | Path) -> tuple[str, ...]:
    """Read class names from a text file: one per line, in the order of the model's outputs."""
    try:
        names = tuple(Path(path).read_text('utf-8', 'surrogateescape').splitlines())
    except OSError as error:
        raise InputError(f'cannot read class names from {path}: {error.strerror}. Check --classes.') from error
    bad = [name for name in names if not name.strip() or names.count(name) > 1] if len(set(names)) < len(names) \
        or '' in map(str.strip, names) else []
    if bad or not names:
        raise InputError(f'{path} must have one class name a line, each once, got '
                         f'{repr(bad[0]) if bad else "no line"}. Fix the file.')
    return names


def _read_timm_file(file: str) -> str:
    return (files('timm.data') / '_info' / file).read_text()
