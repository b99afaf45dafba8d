"""Shifted datasets by name: selection, folders and loading.

`DATASETS[name](root, view=view)` loads a folder as a Shift. Each entry has a title, a place (default folder, None
without files) and images (published number of images).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pit_downstream.utils.registry import DATASETS
from pit_downstream.datasets import backgrounds, imagenet_shifts, objectnet  # noqa: F401  registers them
from pit_downstream.datasets.base import View
from pit_downstream.datasets.folders import folders_in
from pit_downstream.datasets.own_shift import PREFIX, CleanReference, own_shift
from pit_downstream.datasets.shift import IN9_VARIATIONS, Shift, is_validation, require_folders

IN9 = 'in9_original'  # its place is the folder of all variations

_log = logging.getLogger(__name__)


def chosen_places(given: Sequence[str], imagenet: str | Path) -> dict[str, str | None]:
    """Return the folders of the selected shifts by name, None for shifts without files.

    given: texts NAME or NAME=PLACE. 'in9' selects all variations in its folder. A name with the prefix 'shift_' is a
    custom dataset. Empty for all available datasets, ImageNet variants first and IN-9 last.
    imagenet: folder of the validation images, for ReaL. Raises LookupError for an unknown name.
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
    """Load the shifts in `places`. limit: maximum number of images of each, evenly spaced.

    clean: clean images, required for custom datasets. Raises ValueError for more images than published. Fewer images
    log a warning.
    """
    unmatched = [name for name in places if is_own(name) and clean is None]
    if unmatched:
        raise ValueError(f'expected clean images beside {unmatched[0]}, got none; name their folder with --data DIR')
    shifts = {name: own_shift(name, place, clean, view=view) if is_own(name) else DATASETS[name](place, view=view)
              for name, place in places.items()}
    for name, shift in shifts.items():
        _compare(name, shift)
    return {name: _limited(shift, limit) for name, shift in shifts.items()}


def require_places(places: Mapping[str, str | None]) -> None:
    """Raise FileNotFoundError for the first missing folder. The check is cheap and runs before any download."""
    for name, place in places.items():
        if place and not Path(place).is_dir():
            raise FileNotFoundError(f'expected a folder at {place}, found none; check --shifts {name}=DIR '
                                    '(data/README.md describes the layout)')


def is_own(name: str) -> bool:
    """Return whether a shift is a custom dataset, with any of the classes of the clean images."""
    return name.startswith(PREFIX)


def _variations(place: str) -> dict[str, str]:
    found = [variation for variation in IN9_VARIATIONS if variation in folders_in(Path(place))]
    require_folders(Path(place), bool(found), f'the Backgrounds Challenge with folders {", ".join(IN9_VARIATIONS)}')
    return {f'in9_{variation}': place for variation in found}


def _is_there(name: str, place: str | None, imagenet: Path) -> bool:
    """Return whether a dataset is available.

    There is no folder 'challenge', so in9_challenge never is. It is slow and must be selected by name.
    """
    if place is None:
        return imagenet.is_dir() and is_validation(imagenet)
    return (Path(place) / name.removeprefix('in9_') if name.startswith('in9_') else Path(place)).is_dir()


def _compare(name: str, shift: Shift) -> None:
    """Compare the number of images with the published number."""
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
