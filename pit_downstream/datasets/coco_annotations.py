"""COCO annotation files: validation, and repair of unambiguous errors. Other errors are raised."""

import gc
import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pit_downstream.utils.digests import get_cache_path
from pit_downstream.utils.errors import InputError

LARGEST_ID = 2 ** 53  # pycocotools keeps the ids of matches in float64

Size = tuple[int, int]  # height, width


@dataclass
class AnnotationFile:
    """Checked content of a COCO annotation file.

    Attributes:
        content: Content of the file after repairs.
        repairs: Number of changed entries by repair. Empty if the file is correct.
        notes: Number of correct entries that training and evaluation treat differently, by reason.
    """

    content: dict[str, Any]
    repairs: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)


def read_annotations(data: bytes, path: str | Path, *, masks: bool = False, labeled: bool = True) -> AnnotationFile:
    """Check a COCO annotation file and repair unambiguous errors.

    Args:
        data: The bytes of the file.
        path: Its path, for error messages.
        masks: Whether segmentations are used. They are checked only if True.
        labeled: Whether annotations are required, as for training and for AP.

    Raises:
        InputError: An entry is invalid or ambiguous. The message contains file, entry, field and value.
    """
    file = AnnotationFile({})
    file.content = _parse(data, path, file)
    images = _check_images(file, path)
    categories = _check_categories(file, path)
    if labeled or file.content.get('annotations') is not None:
        _check_annotations(file, path, images, categories, masks=masks)
    return file


def write_repaired(file: AnnotationFile, path: str | Path, digest: str, *, masks: bool = False) -> Path:
    """Write a repaired annotation file to the cache and return its path.

    digest: of the content of the original file, `path`. Several processes may write the same file at once.
    Raises OSError if the cache is not writable.
    """
    folder = get_cache_path().parent / 'annotations' / f'{digest}{"-masks" if masks else ""}'
    folder.mkdir(parents=True, exist_ok=True)
    repaired = folder / Path(path).name
    part = repaired.with_name(f'{repaired.name}.{os.getpid()}.part')
    try:
        part.write_text(json.dumps(file.content))
        os.replace(part, repaired)
    finally:
        part.unlink(missing_ok=True)
    return repaired


def _parse(data: bytes, path: str | Path, file: AnnotationFile) -> dict[str, Any]:
    if data.startswith(b'version https://git-lfs'):
        raise InputError(f'Annotation file is a Git LFS pointer, not the file itself: {path}. Run git lfs pull.')
    if not data.strip():
        raise InputError(f'Annotation file is empty: {path}. Replace it.')
    encoding, collecting = json.detect_encoding(data), gc.isenabled()
    gc.disable()  # parsing millions of objects takes a third of the time, and none of them is garbage
    try:
        content = json.loads(data.decode(encoding))
    except UnicodeDecodeError as error:
        raise InputError(f'Annotation file is not UTF-8: {path}, byte 0x{data[error.start]:02x} at offset '
                         f'{error.start}. Convert it to UTF-8.') from error
    except RecursionError as error:
        raise InputError(f'Annotation file is nested too deeply for JSON in COCO format: {path}.') from error
    except ValueError as error:
        raise InputError(f'Annotation file is not valid JSON: {path}, {error}. It may be truncated; replace '
                         'it.') from error
    finally:
        if collecting:
            gc.enable()
    if not isinstance(content, dict):
        raise InputError(f'Annotation file must be an object with images, annotations and categories, got '
                         f'{_quote(content)}: {path}. Name another file.')
    if encoding != 'utf-8':
        file.repairs[f'encoding {encoding} replaced by utf-8'] += 1
    return content


def _check_images(file: AnnotationFile, path: str | Path) -> dict[int | str, Size]:
    """Check all images and return (height, width) by id."""
    entries = _get_entries(file, path, 'images')
    ids = [_parse_id(entry.get('id')) for entry in entries]
    if any(isinstance(id, str) for id in ids) and all(isinstance(entry.get('id'), str) for entry in entries):
        ids = [entry['id'] for entry in entries]  # names such as '0001' and 'a1' all remain text
    sizes: dict[int | str, Size] = {}
    first: dict[int | str, int] = {}
    for index, (entry, id) in enumerate(zip(entries, ids, strict=True)):
        if id is None or id == '' or type(id) is not type(ids[0]):
            _raise_invalid(path, f'images[{index}]', 'id', 'an integer, or text in all images', entry.get('id'))
        where = f'images[{index}] (id {_quote(entry["id"])})'
        if not isinstance(entry.get('file_name'), str) or not entry['file_name']:
            _raise_invalid(path, where, 'file_name', 'a file name', entry.get('file_name'))
        for key in ('height', 'width'):
            side = entry.get(key)
            if type(side) is float and side.is_integer():
                entry[key] = side = int(side)
                file.repairs[f'{key} of an image converted to an integer'] += 1
            if type(side) is not int or side < 1:
                _raise_invalid(path, where, key, 'a positive integer', side)
        if id in first:
            other = entries[first[id]]
            if any(other[key] != entry[key] for key in ('file_name', 'height', 'width')):
                _raise_invalid(path, where, 'id', f'unique, but images[{first[id]}] has it, too', entry['id'])
            file.repairs['repeated entry of an image removed'] += 1
            continue
        if entry['id'] != id or type(entry['id']) is not type(id):
            entry['id'] = id
            file.repairs['id of an image converted to an integer'] += 1
        first[id], sizes[id] = index, (entry['height'], entry['width'])
    if len(first) < len(entries):
        file.content['images'] = [entries[index] for index in first.values()]
    return sizes


def _check_categories(file: AnnotationFile, path: str | Path) -> set[int]:
    """Check all categories and return their ids."""
    ids: dict[int, str] = {}
    names: dict[str, Any] = {}
    kept = []
    for index, entry in enumerate(_get_entries(file, path, 'categories')):
        id, name, where = _parse_id(entry.get('id')), entry.get('name'), f'categories[{index}]'
        if not isinstance(id, int):
            _raise_invalid(path, where, 'id', 'an integer', entry.get('id'))
        if not isinstance(name, str) or not name.strip():
            _raise_invalid(path, f'{where} (id {id})', 'name', 'a name', name)
        if ids.get(id) == name:
            file.repairs['repeated entry of a category removed'] += 1
            continue
        if id in ids:
            _raise_invalid(path, where, 'id', f'unique, but {_quote(ids[id])} and {_quote(name)} have it', id)
        if name in names:
            _raise_invalid(path, f'{where} (id {id})', 'name', f'unique, but category {names[name]} has it, too',
                    name)
        if type(entry['id']) is not int:
            entry['id'] = id
            file.repairs['id of a category converted to an integer'] += 1
        ids[id], names[name] = name, id
        kept.append(entry)
    file.content['categories'] = kept
    return set(ids)


def _check_annotations(file: AnnotationFile, path: str | Path, images: dict[int | str, Size], categories: set[int], *,
                       masks: bool) -> None:
    entries = _get_entries(file, path, 'annotations')
    for index, entry in enumerate(entries):
        where = f'annotations[{index}] (id {_quote(entry.get("id"))})' if 'id' in entry else f'annotations[{index}]'
        _check_reference(file, path, where, entry, 'image_id', images)
        _check_reference(file, path, where, entry, 'category_id', categories)
        box = entry.get('bbox')
        if type(box) is not list or len(box) != 4 or not _is_finite(box):
            _raise_invalid(path, where, 'bbox', 'four finite numbers (left, top, width, height)', box)
        if box[2] < 0 or box[3] < 0:
            _raise_invalid(path, where, 'bbox', 'no negative width or height', box)
        crowd = entry.get('iscrowd')
        if type(crowd) not in (int, bool) or crowd not in (0, 1):
            if crowd not in (None, 0, 1, '', '0', '1'):
                _raise_invalid(path, where, 'iscrowd', '0 or 1', crowd)
            entry['iscrowd'] = int(crowd or 0)
            file.repairs['iscrowd set to 0' if crowd in (None, '') else 'iscrowd converted to an integer'] += 1
        if masks:
            _check_segmentation(file, path, where, entry, images[entry['image_id']])
        area = entry.get('area')
        if not isinstance(area, (int, float)) or isinstance(area, bool) or not 0 <= area < math.inf:
            entry['area'] = _compute_area(entry)
            file.repairs['area computed from the polygons or the box'] += 1
        if _is_skipped_in_training(entry, images[entry['image_id']]):
            file.notes['object under one pixel or outside its image counts for AP, but is not trained on'] += 1
    ids = [entry.get('id') for entry in entries]
    if not all(type(id) is int and 0 < id <= LARGEST_ID for id in ids) or len(set(ids)) < len(ids):
        for number, entry in enumerate(entries, 1):  # pycocotools treats a match with id 0 as no match
            entry['id'] = number
        file.repairs['annotation ids renumbered from 1'] = len(entries)


def _check_reference(file: AnnotationFile, path: str | Path, where: str, entry: dict, key: str,
                     known: dict[int | str, Size] | set[int]) -> None:
    """Check that an annotation's image_id or category_id exists. '7' and 7.0 are converted to 7."""
    value = entry.get(key)
    if type(value) in (int, str) and value in known:
        return
    id = _parse_id(value)
    if id is None or id not in known:
        kind = key.removesuffix('_id')
        _raise_invalid(path, where, key,
                       f'the id of one of the {len(known)} {"images" if kind == "image" else "categories"}',
                value)
    entry[key] = id
    file.repairs[f'{key} converted to an integer'] += 1


def _check_segmentation(file: AnnotationFile, path: str | Path, where: str, entry: dict, size: Size) -> None:
    """Remove polygons of fewer than three points. Raises InputError if the segmentation has no mask."""
    segmentation = entry.get('segmentation')
    if isinstance(segmentation, dict):
        counts = segmentation.get('counts')
        if segmentation.get('size') != list(size):
            _raise_invalid(path, where, 'segmentation.size', f'{list(size)}, height and width of its image',
                    segmentation.get('size'))
        if not isinstance(counts, str) and (
                type(counts) is not list or not counts or {*map(type, counts)} != {int} or min(counts) < 0
                or sum(counts) != size[0] * size[1]):
            _raise_invalid(path, where, 'segmentation.counts', 'run lengths of its image', counts)
        return
    if not isinstance(segmentation, list) or not segmentation:
        _raise_invalid(path, where, 'segmentation', 'polygons or run lengths, because masks are used', segmentation)
    for polygon in segmentation:
        if type(polygon) is not list or len(polygon) % 2 or not _is_finite(polygon):
            _raise_invalid(path, where, 'segmentation', 'lists of an even number of finite numbers', polygon)
    kept = [polygon for polygon in segmentation if len(polygon) >= 6]
    if not kept:
        _raise_invalid(path, where, 'segmentation', 'a polygon of three points or more, because masks are used',
                       segmentation)
    if len(kept) < len(segmentation):
        entry['segmentation'] = kept
        file.repairs['polygon of fewer than three points removed'] += len(segmentation) - len(kept)


def _compute_area(entry: dict) -> float:
    """Return the area of the segmentation as defined by COCO, or of the box if the segmentation is invalid."""
    segmentation = entry.get('segmentation')
    if isinstance(segmentation, dict):
        counts = segmentation.get('counts')
        if type(counts) is list and {*map(type, counts)} == {int}:
            return float(sum(counts[1::2]))
        if isinstance(counts, str) and _is_size(segmentation.get('size')):
            from pycocotools import mask
            return float(mask.area({'counts': counts, 'size': segmentation['size']}))
    elif isinstance(segmentation, list) and segmentation and all(
            type(polygon) is list and len(polygon) >= 6 and not len(polygon) % 2 and _is_finite(polygon)
            for polygon in segmentation):
        return sum(map(_compute_polygon_area, segmentation))
    return float(entry['bbox'][2] * entry['bbox'][3])


def _compute_polygon_area(polygon: Sequence[float]) -> float:
    """Return the area of a polygon x1, y1, x2, y2 ... by the shoelace formula."""
    xs, ys = polygon[0::2], polygon[1::2]
    return abs(sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))) / 2


def _is_skipped_in_training(entry: dict, size: Size) -> bool:
    """Return whether mmdet's CocoDataset.parse_data_info skips the object."""
    left, top, width, height = entry['bbox']
    return (width < 1 or height < 1 or entry['area'] <= 0 or min(left + width, size[1]) <= max(left, 0)
            or min(top + height, size[0]) <= max(top, 0))


def _get_entries(file: AnnotationFile, path: str | Path, key: str) -> list[dict[str, Any]]:
    """Return a list of the file. Raises InputError if it is missing or empty."""
    entries = file.content.get(key)
    if not isinstance(entries, list) or not entries:
        raise InputError(f'Annotation file must have a list of {key}, got {_quote(entries)}: {path}. Name another '
                         'file, or fix this one.')
    for index, entry in enumerate(entries):
        if type(entry) is not dict:
            raise InputError(f'Annotation file must have an object at {key}[{index}], got {_quote(entry)}: {path}. '
                             'Fix the file.')
    return entries


def _parse_id(value: object) -> int | str | None:
    """Return an id as an integer if it is or represents one, as text if it is other text, else None."""
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is str and len(value) < 19 and value.removeprefix('-').isdecimal() and str(int(value)) == value:
        return int(value)
    return value if type(value) in (int, str) else None  # type: ignore[return-value]  # of a bool the type is bool


def _is_finite(values: list) -> bool:
    try:
        return {*map(type, values)} <= {int, float} and math.isfinite(sum(values))
    except OverflowError:
        return False


def _is_size(value: object) -> bool:
    return type(value) is list and len(value) == 2 and all(type(side) is int and side > 0 for side in value)


def _quote(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)[:200] if not isinstance(value, (list, dict)) or len(value) < 50 else (
        f'a list of {len(value)}' if isinstance(value, list) else f'an object of {len(value)} keys')
    return text if len(text) <= 80 else f'{text[:77]}...'


def _raise_invalid(path: str | Path, where: str, key: str, expected: str, value: object) -> NoReturn:
    raise InputError(f'Annotation file {path}: {key} of {where} must be {expected}, got {_quote(value)}. Fix the file.')
