"""ImageNet and datasets with its layouts: class folders, a flat folder with labels, published corrupted sets."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pit_downstream.results.condition import Condition
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import Spec, Value
from pit_downstream.datasets.base import ImageFolderSamples, ImageNetCFolders, Preprocess
from pit_downstream.datasets.folders import (
    list_folders,
    list_images_by_class,
    scan_folder,
    list_images,
    make_printable,
    warn_ignored,
)
from pit_downstream.datasets.labelsets import Classes, get_wnid_indices

_DEVKIT = ('it looks like the numbering 1..1000 of the ILSVRC development kit, which is not the order of the class '
           'indices; give WordNet ids or indices 0..999')


def load_class_folders(root: str | Path, *, view: Preprocess, name: str | None = None, classes: Classes | None = None
                       ) -> ImageFolderSamples:
    """Load root/<class>/*.JPEG. The name is 'imagenet' for all 1000 classes, else 'folder' with the end of the path.

    classes: of the model, matched to folders by name.
    """
    root = Path(root)
    folders = list_folders(root)
    if not folders and list_images(root):
        raise InputError(f'expected class folders in {root}, found {len(list_images(root))} images; for a flat '
                         'folder give their classes with --labels FILE')
    names = list_images_by_class(root, folders)
    indices = (classes or Classes()).indices(folders, [folder for folder in folders if names[folder]])
    found = [(f'{folder}/{name}', indices[folder]) for folder in folders for name in names[folder]]
    ids, targets = zip(*found, strict=True) if found else ((), ())
    thousand = set(folders) == get_wnid_indices().keys()
    return ImageFolderSamples(root, ids, targets, view=view, name=name or _make_name(root, thousand))


def load_flat_folder(root: str | Path, labels: str | Path, *, view: Preprocess, name: str | None = None,
                     classes: Classes | None = None) -> ImageFolderSamples:
    """Load images directly in `root`, with their classes in the text file `labels`.

    A line is 'image label', separated by a comma or by the last whitespace of the line. Kaggle's LOC_val_solution.csv
    has this format. The image's suffix is optional. A file of labels alone refers to the images in sorted order.
    A label is a class index, a WordNet id or the name of one of `classes`.
    """
    root, labels = Path(root), Path(labels)
    if not labels.is_file():
        raise InputError(f'expected the labels of {root} in {labels}, found no such file; check --labels')
    listing = scan_folder(root)
    names = listing.images
    warn_ignored(root, {'hidden': listing.hidden, 'no image': [
        other for other in listing.others if (root / other).resolve() != labels.resolve()]})
    targets = _read_labels(labels, names, classes or Classes())
    unnamed = [name for name in names if name not in targets]
    if unnamed:
        raise InputError(f'expected a label for each of the {len(names)} images in {root}, got none for '
                         f'{len(unnamed)} of them, {", ".join(unnamed[:3])} ...; complete {labels}')
    return ImageFolderSamples(root, names, [targets[name] for name in names], view=view,
                          name=name or _make_name(root, len(set(targets.values())) == 1000))


def load_unlabeled_folder(root: str | Path, *, view: Preprocess, exclude: str | Path | None = None
                          ) -> ImageFolderSamples:
    """Load the images at any depth below `root`, with the class 0.

    exclude: folder to leave out, such as that of the figures.
    """
    root = Path(root)
    ids = [f'{parent}/{image}' if parent else image for parent, images in _walk(root, exclude) for image in images]
    if not ids:
        raise InputError(f'no images under {root}. Pass another --data DIR.')
    return ImageFolderSamples(root, ids, [0] * len(ids), view=view, name=make_folder_name(root))


def _walk(root: Path, exclude: str | Path | None, parent: str = '') -> Iterator[tuple[str, list[str]]]:
    """Yield each folder below `root` as a relative path, with its images, sorted."""
    if exclude is not None and (root / parent).resolve() == Path(exclude).resolve():
        return
    listing = scan_folder(root / parent)
    yield parent, listing.images
    for folder in listing.folders:
        yield from _walk(root, exclude, f'{parent}/{folder}' if parent else folder)


def is_imagenet(samples: ImageFolderSamples) -> bool:
    """Return whether the classes are ImageNet's: folders are its WordNet ids, or all 1000 indices occur."""
    folders = {id.partition('/')[0] for id in samples.ids}
    return folders <= get_wnid_indices().keys() or len(set(samples.targets)) == 1000


def load_corruption_folders(root: str | Path, corruptions: Iterable[str], severities: Iterable[int], *,
                            view: Preprocess,
                            name: str | None = None, clean: ImageFolderSamples | None = None, limit: int | None = None,
                            classes: Classes | None = None) -> ImageNetCFolders:
    """Load published corrupted images: ImageNet-C, ImageNet-C-bar, ImageNet-3DCC.

    Layouts: root/<corruption>/<severity>/<class>/* and root/<group>/<corruption>/<severity>/<class>/*. The name is
    'imagenet_c' for all 1000 classes, else 'folder' with the end of the path.
    Raises InputError that lists the missing folders, before any folder is read.
    """
    root, severities = Path(root), tuple(severities)
    places = {Condition(Spec.of(corruption, severity=severity)): _find_corruption(root, corruption) / str(severity)
              for corruption in corruptions for severity in severities}
    missing = [str(place.relative_to(root)) for place in places.values() if not place.is_dir()]
    if missing:
        shown = ', '.join(missing[:8]) + (f' and {len(missing) - 8} more' if len(missing) > 8 else '')
        raise InputError(f'expected the folders {shown} in {root}, found none of these; complete the dataset, '
                         'or choose with --corruptions and --severities')
    folders = {condition: load_class_folders(place, view=view, name='published', classes=classes)
               for condition, place in places.items()}
    if limit is not None:
        folders = {condition: samples.take(limit) for condition, samples in folders.items()}
    if name is None:
        whole = set(list_folders(next(iter(places.values())))) == get_wnid_indices().keys()
        name = 'imagenet_c' if whole else make_folder_name(root)
    return ImageNetCFolders(name, folders, clean=clean)


def _find_corruption(root: Path, corruption: str) -> Path:
    """Return the folder of a corruption: root/<corruption>, or root/<group>/<corruption> if only that exists."""
    list_folders(root)
    grouped = sorted(root.glob(f'*/{corruption}'))
    return grouped[0] if grouped and not (root / corruption).is_dir() else root / corruption


def _read_labels(path: Path, names: list[str], classes: Classes) -> dict[str, int]:
    rows = [_split_row(line.strip()) for line in path.read_text('utf-8', 'surrogateescape').splitlines()
            if line.strip()]
    rows = [row for row in rows if row[0] not in ('ImageId', 'filename', 'image')]
    if all(len(row) == 1 for row in rows):
        if len(rows) != len(names):
            raise InputError(f'expected {len(names)} labels in {path}, one for each image, got {len(rows)}')
        rows = [[name, *row] for name, row in zip(names, rows, strict=True)]
    stems = {name.rsplit('.', 1)[0]: name for name in names}
    targets: dict[str, int] = {}
    for name, label in ((stems.get(row[0], row[0]), classes.label(row[1])) for row in rows if len(row) > 1):
        if targets.setdefault(name, label) != label:
            raise InputError(f'expected one class for each image in {path}, got {targets[name]} and {label} for '
                             f'{name}. Remove one of its lines')
    if max(targets.values(), default=0) > 999 and min(targets.values()) > 0:
        raise InputError(f'expected class indices 0..999 in {path}, got {min(targets.values())}..'
                         f'{max(targets.values())}; {_DEVKIT}')
    return targets


def _split_row(line: str) -> list[str]:
    """Split a line into [label] or [image, label ...]. Image names may contain spaces."""
    name, comma, labels = line.partition(',')
    return [name.strip(), *labels.split()] if comma else line.rsplit(maxsplit=1)


def _make_name(root: Path, all_classes: bool) -> str:
    return 'imagenet' if all_classes else make_folder_name(root)


def make_folder_name(root: str | Path, **kwargs: Value) -> str:
    """Return the record name of a folder that is not a known dataset: "folder(root='flowers/val')"."""
    return str(Spec.of('folder', root=make_printable('/'.join(Path(root).resolve().parts[-2:])), **kwargs))
