"""Which class index a folder's name stands for."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from types import MappingProxyType

_WNID = re.compile(r'n\d{8}')


@cache
def wnid_indices() -> Mapping[str, int]:
    """Index in 0..999 by WordNet id, in the order of ImageNet-1k; timm carries the list."""
    from timm.data import ImageNetInfo
    return MappingProxyType({wnid: index for index, wnid in enumerate(ImageNetInfo().label_names())})


@cache
def subset_indices(name: str) -> Mapping[str, int]:
    """Index in 0..999 by WordNet id of the 200 classes of 'imagenet_a' or 'imagenet_r'; timm carries the lists."""
    wnids = _of_timm(f'{name}_synsets.txt').split()
    return MappingProxyType({wnid: wnid_indices()[wnid] for wnid in wnids})


@cache
def real_labels() -> tuple[tuple[int, ...], ...]:
    """What is to be seen in each of the 50,000 validation pictures of ImageNet, by number; () where it is none of it.

    Class indices in 0..999: real.json of Beyer et al. 2020, "Are we done with ImageNet?", of which timm carries a copy.
    """
    return tuple(map(tuple, json.loads(_of_timm('imagenet_real_labels.json'))))


def class_indices(names: Sequence[str]) -> dict[str, int]:
    """Class index by folder name.

    WordNet ids have their place in the list of 1000, also where only some of the classes are there. Names that are
    numbers mean themselves: ImageNet-V2 has folders '0'..'999', which sorted as text would mislabel. Any other names
    are numbered in sorted order.
    """
    if names and all(map(str.isdecimal, names)):
        return {name: int(name) for name in names}
    wnids = [name for name in names if _WNID.fullmatch(name)]
    if not wnids:
        return {name: index for index, name in enumerate(sorted(names))}
    strange = [name for name in names if name not in wnid_indices()]
    if strange:
        raise ValueError(f'expected the folders of ImageNet-1k, one for each WordNet id, got {len(wnids)} of them '
                         f'beside {", ".join(strange[:4])}, which are none of the 1000; move these elsewhere')
    return {name: wnid_indices()[name] for name in names}


def parse_label(text: str) -> int:
    """A class index as a number or as WordNet id."""
    if text.isdecimal():
        return int(text)
    if text not in wnid_indices():
        raise ValueError(f'expected a class index or one of the 1000 WordNet ids as label, got {text!r}')
    return wnid_indices()[text]


def _of_timm(file: str) -> str:
    return (files('timm.data') / '_info' / file).read_text()
