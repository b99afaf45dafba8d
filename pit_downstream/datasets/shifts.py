"""The shifted datasets by name: which are asked for, where they lie, and opening them.

An entry of DATASETS opens a folder as `DATASETS[name](root, view=view)` and gives a Shift. What is said about it:
title; place, where it lies unless told otherwise (None: it has no files); images, how many it was published with.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pit_downstream.core.registry import DATASETS
from pit_downstream.datasets import backgrounds, imagenet_shifts, objectnet  # noqa: F401  registers them
from pit_downstream.datasets.base import View
from pit_downstream.datasets.folders import folders_in
from pit_downstream.datasets.own_shift import PREFIX, CleanReference, own_shift
from pit_downstream.datasets.shift import IN9_VARIATIONS, Shift, is_validation, require_folders

IN9 = 'in9_original'  # says where all variations lie

_log = logging.getLogger(__name__)


def chosen_places(given: Sequence[str], imagenet: str | Path) -> dict[str, str | None]:
    """Where the shifts of a command line lie, by name; None for what needs no files of its own.

    given: texts NAME or NAME=PLACE, where 'in9' stands for every variation that lies in its place and a name with
    'shift_' in front is a dataset of one's own; empty for all whose folder is there, ImageNet's relatives first and
    IN-9 last. imagenet: folder of the validation images, for ReaL. Raises LookupError for an unknown name.
    """
    if not given:
        names = sorted(DATASETS, key=lambda name: (not name.startswith('imagenet_'), name.startswith('in9_')))
        usual = {name: DATASETS.entry(name).about['place'] for name in names}
        return {name: place for name, place in usual.items() if _is_there(name, place, Path(imagenet))}
    chosen: dict[str, str | None] = {}
    for text in given:
        name, _, place = text.partition('=')
        if is_own(name):
            if not place or chosen.get(name, place) != place:
                raise ValueError(f'expected one place of {name}, got {"two" if place else "none"}; say --shifts '
                                 f'{name}=DIR once')
            chosen[name] = place
            continue
        usual = DATASETS.entry(IN9 if name == 'in9' else name).about['place']
        if place and usual is None:
            raise ValueError(f'expected {name} without a place, got {text}; it is measured on the images of --data')
        chosen |= _variations(place or usual) if name == 'in9' else {name: place or usual}
    return chosen


def open_shifts(places: Mapping[str, str | None], *, view: View, clean: CleanReference | None = None,
                limit: int | None = None) -> dict[str, Shift]:
    """Every shift of `places`, its images as `view` shows them. limit: at most so many of each, evenly spread.

    clean: beside which datasets of one's own lie. Raises ValueError for more images than were published; fewer are
    a warning.
    """
    homeless = [name for name in places if is_own(name) and clean is None]
    if homeless:
        raise ValueError(f'expected clean images beside {homeless[0]}, got none; say where they lie with --data DIR')
    shifts = {name: own_shift(name, place, clean, view=view) if is_own(name) else DATASETS[name](place, view=view)
              for name, place in places.items()}
    for name, shift in shifts.items():
        _compare(name, shift)
    return {name: _limited(shift, limit) for name, shift in shifts.items()}


def require_places(places: Mapping[str, str | None]) -> None:
    """Raise FileNotFoundError for the first place that is not there; cheap, so that it comes before any download."""
    for name, place in places.items():
        if place and not Path(place).is_dir():
            raise FileNotFoundError(f'expected a folder at {place}, found none; check --shifts {name}=DIR '
                                    '(data/README.md says how it lies there)')


def is_own(name: str) -> bool:
    """Whether a shift is a dataset of one's own, of whatever classes the clean images have."""
    return name.startswith(PREFIX)


def _variations(place: str) -> dict[str, str]:
    found = [variation for variation in IN9_VARIATIONS if variation in folders_in(Path(place))]
    require_folders(Path(place), bool(found), f'the Backgrounds Challenge with folders {", ".join(IN9_VARIATIONS)}')
    return {f'in9_{variation}': place for variation in found}


def _is_there(name: str, place: str | None, imagenet: Path) -> bool:
    """Never of in9_challenge, which has no folder of that name: it takes long, one must ask for it."""
    if place is None:
        return imagenet.is_dir() and is_validation(imagenet)
    return (Path(place) / name.removeprefix('in9_') if name.startswith('in9_') else Path(place)).is_dir()


def _compare(name: str, shift: Shift) -> None:
    """The number of images with that of the published set."""
    if is_own(name):
        return
    published, title = (DATASETS.entry(name).about[key] for key in ('images', 'title'))
    if shift.samples is None or published in (None, len(shift.samples)):
        return
    if len(shift.samples) > published:
        raise ValueError(f'expected the {published} images of {title} in {shift.samples.root}, got '
                         f'{len(shift.samples)}; give its own folder')
    _log.warning('%s has %d of its %d images in %s', title, len(shift.samples), published, shift.samples.root)


def _limited(shift: Shift, limit: int | None) -> Shift:
    if limit is None or shift.samples is None or limit >= len(shift.samples):
        return shift
    return replace(shift, samples=shift.samples.limited(limit))
