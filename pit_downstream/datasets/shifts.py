"""Shifted datasets: other images of the classes of clean ones. Selection by name, loading, and custom shifts.

`DATASETS[name](root, preprocess=preprocess)` loads a published shift from a folder. Its entry has a title, a folder
(default path, None without files) and images (published number of images). The modules `imagenet_shifts` and
`backgrounds` register the published shifts.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pit_downstream.datasets.base import ImageFolderSamples, Preprocess
from pit_downstream.datasets.folders import list_folders, list_images, list_images_by_class
from pit_downstream.datasets.labelsets import Classes, get_subset_indices, get_wnid_indices
from pit_downstream.utils.digests import hash_text
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import LabelFunction
from pit_downstream.utils.registry import DATASETS, Registry
from pit_downstream.utils.spec import Spec, Value

CUSTOM_PREFIX = 'shift_'  # of the names of custom shifts
IN9 = 'in9_original'  # its folder is that of all variations
IN9_VARIATIONS = ('original', 'mixed_same', 'mixed_rand', 'mixed_next', 'only_fg', 'no_fg', 'only_bg_b', 'only_bg_t')
VALIDATION_NAME = re.compile(r'ILSVRC2012_val_(\d{8})')

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shift:
    """Loaded shifted dataset: its images and the definition of a correct prediction.

    samples: images, with all correct class indices as targets. None for a dataset without images (ReaL relabels
    ImageNet).
    classes: candidate class indices of a prediction, None for all classes of the model.
    clean_labels: metrics on the clean images (of ImageNet, for a published dataset) by name, each with its function
    from sample to correct class indices. They measure the same task on clean images of the matching classes.
    """

    samples: ImageFolderSamples | None
    classes: tuple[int, ...] | None = None
    clean_labels: Mapping[str, LabelFunction] = field(default_factory=dict)


@dataclass(frozen=True)
class CleanReference:
    """Clean images of a custom shift.

    root: folder of the class folders. name: of the records of the clean images. classes: of the model, matched to
    folders.
    """

    root: Path
    name: str
    classes: Classes = field(default_factory=Classes)


def is_custom(name: str) -> bool:
    """Return whether a shift is a custom dataset, with any of the classes of the clean images."""
    return name.startswith(CUSTOM_PREFIX)


def load_registry() -> Registry:
    """Return the registry of published shifts, after the import of the modules that fill it."""
    from pit_downstream.datasets import backgrounds, imagenet_shifts  # noqa: F401
    return DATASETS


def select_shifts(names: Sequence[str], imagenet: str | Path) -> dict[str, str | None]:
    """Return the folders of the selected shifts by name, None for shifts without files.

    names: texts NAME or NAME=DIR. 'in9' selects all variations in its folder. A name with the prefix 'shift_' is a
    custom dataset. Empty for all available datasets, ImageNet variants first and IN-9 last.
    imagenet: folder of the validation images, for ReaL. Raises InputError for an unknown name.
    """
    registry = load_registry()
    if not names:
        order = sorted(registry, key=lambda name: (not name.startswith('imagenet_'), name.startswith('in9_')))
        defaults = {name: registry.get_entry(name).metadata['folder'] for name in order}
        return {name: folder for name, folder in defaults.items() if _is_available(name, folder, Path(imagenet))}
    selected: dict[str, str | None] = {}
    for text in names:
        name, _, folder = text.partition('=')
        if is_custom(name):
            if not folder or selected.get(name, folder) != folder:
                raise InputError(f'{name} must be given once with a folder, got {"two" if folder else "no"} folders. '
                                 f'Pass --shifts {name}=DIR once.')
            selected[name] = folder
            continue
        default = registry.get_entry(IN9 if name == 'in9' else name).metadata['folder']
        if folder and default is None:
            raise InputError(f'{name} has no folder, because it is measured on the images of --data, got {text}. Pass '
                             f'--shifts {name}.')
        folder = folder or default
        if name == 'in9':
            available = [variation for variation in IN9_VARIATIONS if variation in list_folders(Path(folder))]
            require_layout(Path(folder), bool(available),
                           f'the Backgrounds Challenge with folders {", ".join(IN9_VARIATIONS)}')
            selected |= {f'in9_{variation}': folder for variation in available}
        else:
            selected[name] = folder
    return selected


def _is_available(name: str, folder: str | None, imagenet: Path) -> bool:
    """Return whether a dataset is available.

    There is no folder 'challenge', so in9_challenge never is. It is slow and must be selected by name.
    """
    if folder is None:
        return imagenet.is_dir() and is_imagenet_validation(imagenet)
    return (Path(folder) / name.removeprefix('in9_') if name.startswith('in9_') else Path(folder)).is_dir()


def check_folders(folders: Mapping[str, str | None]) -> None:
    """Raise InputError for the first missing folder. The check is cheap and runs before any download."""
    for name, folder in folders.items():
        if folder and not Path(folder).is_dir():
            raise InputError(f'No folder at {folder}. Check --shifts {name}=DIR (data/README.md describes the '
                             'layout).')


def load_shifts(folders: Mapping[str, str | None], *, view: Preprocess, clean: CleanReference | None = None,
                limit: int | None = None) -> dict[str, Shift]:
    """Load the shifts of select_shifts(). limit: maximum number of images of each, evenly spaced.

    clean: clean images, required for custom datasets. Raises InputError for more images than published. Fewer images
    log a warning.
    """
    registry = load_registry()
    custom = [name for name in folders if is_custom(name)]
    if custom and clean is None:
        raise InputError(f'{custom[0]} needs clean images, got none. Pass their folder with --data DIR.')
    shifts = {name: load_custom_shift(name, folder, clean, view=view) if is_custom(name) and folder and clean
              else registry[name](folder, view=view) for name, folder in folders.items()}
    for name, shift in shifts.items():
        if shift.samples is None:
            continue
        if not is_custom(name):
            published, title = (registry.get_entry(name).metadata[key] for key in ('images', 'title'))
            if published is not None and len(shift.samples) > published:
                raise InputError(f'{title} has {published} images, got {len(shift.samples)} in {shift.samples.root}. '
                                 'Pass the folder of this dataset alone.')
            if published is not None and len(shift.samples) < published:
                _log.warning('%s has %d of its %d images in %s', title, len(shift.samples), published,
                             shift.samples.root)
        if limit is not None and limit < len(shift.samples):
            shifts[name] = replace(shift, samples=shift.samples.take(limit))
    return shifts


def load_custom_shift(name: str, root: str | Path, clean: CleanReference, *, view: Preprocess) -> Shift:
    """Load a custom shift: root/<class>/*, with all or some of the class folders of the clean images.

    The name of its records identifies the reference for comparison: 'clean' is the digest of the clean images' files.
    'classes' is the digest of the class indices, present if only clean images of some classes are the reference.
    """
    root = Path(root)
    if not re.fullmatch(f'{CUSTOM_PREFIX}[a-z0-9_]+', name):
        raise InputError(f'The name of a custom shift must be like {CUSTOM_PREFIX}fog, of lower-case letters, digits '
                         f'and _, got {name!r}. Rename it in --shifts.')
    if root.resolve() == clean.root.resolve():
        raise InputError(f'{name} must be other images than the clean ones, got {root} for both. Change --shifts or '
                         '--data.')
    filled, clean_filled = ([folder for folder in list_folders(parent) if list_images(parent / folder)]
                            for parent in (root, clean.root))
    indices = clean.classes.indices(list_folders(clean.root), clean_filled)
    unknown = [folder for folder in filled if folder not in clean_filled]
    if unknown:
        raise InputError(f'Folders in {root} must be named by classes that have images in {clean.root}, got '
                         f'{", ".join(unknown[:3])}{" ..." * (len(unknown) > 3)}. Rename or remove them.')
    folders = {folder: (indices[folder],) for folder in filled}
    arguments: dict[str, Value] = {'root': '/'.join(root.resolve().parts[-2:]),
                                   'clean': Spec.parse(clean.name).get('files')}
    clean_labels = {}
    if len(filled) < len(clean_filled):
        classes = sorted(index for (index,) in folders.values())
        arguments['classes'] = hash_text(repr(classes))
        clean_labels = {f'classes_{arguments["classes"]}_top1_error': filter_targets(classes)}
    return Shift(load_labeled_folders(root, folders, name, view, **arguments), clean_labels=clean_labels)


def load_labeled_folders(root: Path, folders: Mapping[str, Iterable[int]], name: str, view: Preprocess, /,
                         **arguments: Value) -> ImageFolderSamples:
    """Load the images of the folders below `root`, each with the class indices of its folder as correct labels.

    name, arguments: of the Spec under which records are kept.
    """
    labeled = [(f'{folder}/{image}', tuple(folders[folder]))
               for folder, images in list_images_by_class(root, folders).items() for image in images]
    if not labeled:
        raise InputError(f'No images in the {len(folders)} class folders of {root}. Check the folder.')
    ids, targets = zip(*labeled, strict=True)
    return ImageFolderSamples(root, ids, targets, view=view, name=str(Spec.of(name, **arguments)))


def filter_targets(classes: Iterable[int]) -> LabelFunction:
    """Return a function that returns the target of images of `classes`, and () for other images."""
    classes = frozenset(classes)
    return lambda sample: (sample.target,) if sample.target in classes else ()


def drop_resize(view: Preprocess) -> Preprocess:
    """Return the view for images published as 224 x 224 crops. They are resized only for models of another size."""
    return replace(view, resize=None if view.size in (None, 224) else view.size)


def require_layout(root: Path, fits: bool, expected: str) -> None:
    """Raise InputError with a description of `root` unless `fits`."""
    if not fits:
        raise InputError(f'Expected {expected} in {root}, which looks like {describe_folder(root)}. Pass another '
                         'folder.')


def require_imagenet(root: Path) -> None:
    """Raise InputError unless `root` has ImageNet's class folders. The gap of ImageNet-A to itself would be 0."""
    require_layout(root, is_imagenet_1k(list_folders(root)),
                   "ImageNet's validation images in folders of the 1000 classes")


def is_imagenet_1k(names: list[str]) -> bool:
    """Return whether folder names are of the 1000 classes, and not exactly the 200 of ImageNet-A or -R."""
    subsets = (get_subset_indices(name).keys() for name in ('imagenet_a', 'imagenet_r'))
    return bool(names) and set(names) <= get_wnid_indices().keys() and all(set(names) != subset for subset in subsets)


def is_imagenet_validation(root: Path) -> bool:
    """Return whether the first image of the first class (or of a flat folder) has an ImageNet validation name."""
    images = list_images(root.joinpath(*list_folders(root)[:1]))
    return bool(images) and VALIDATION_NAME.match(images[0]) is not None


def describe_folder(root: Path) -> str:
    """Describe the dataset in a folder: 'ImageNet-R: 200 folders named by WordNet id'."""
    names = list_folders(root)
    if {'images', 'mappings'} <= set(names):
        return 'ObjectNet: folders images and mappings'
    if set(IN9_VARIATIONS[1:3]) <= set(names):
        return 'the Backgrounds Challenge: a folder for each variation'
    if names and all(map(str.isdecimal, names)):
        return f'ImageNet-V2: {len(names)} folders with numbers as names'
    if not names:
        return f'{len(list_images(root))} images without class folders'
    if not set(names) <= get_wnid_indices().keys():
        if len(names) == 1:
            return f'a folder around {names[0]}, which looks like {describe_folder(root / names[0])}'
        return f'{len(names)} folders ({", ".join(names[:3])}{" ..." * (len(names) > 3)})'
    folders = f'{len(names)} folder{"s" * (len(names) > 1)} named by WordNet id'
    for subset, title in (('imagenet_a', 'ImageNet-A'), ('imagenet_r', 'ImageNet-R')):
        if set(names) == get_subset_indices(subset).keys():
            return f'{title}: {folders}'
    in_a, in_r = (set(names) <= get_subset_indices(subset).keys() for subset in ('imagenet_a', 'imagenet_r'))
    if in_a != in_r:
        return f'a part of ImageNet-{"A" if in_a else "R"}: {folders}'
    if is_imagenet_validation(root):
        return f"ImageNet's validation images: {folders}"
    return f'classes of ImageNet-1k: {folders}'
