"""Checks and repairs of the COCO annotation files of a config, before any other work."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mmdet.datasets import CocoDataset, CocoPanopticDataset, LVISV05Dataset
from mmdet.evaluation import CocoMetric, LVISMetric
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config
from mmengine.fileio import get
from mmengine.registry import Registry

from pit_downstream.utils.digests import get_cache_path, hash_bytes
from pit_downstream.datasets.coco_annotations import read_annotations, write_repaired
from pit_downstream.evaluation.distributed import broadcast, rank, raise_on_all_ranks
from pit_downstream.det.data_checks import resolve_class, iterate_dicts
from pit_downstream.utils.errors import InputError

_log = logging.getLogger(__name__)


class _AnnotatedPart(NamedTuple):
    """Dataset or evaluator of a config that reads a COCO annotation file."""

    part: dict
    path: str
    masks: bool
    labeled: bool


class CheckedFile(NamedTuple):
    """Categories of a checked annotation file.

    Attributes:
        copy: Path of the repaired copy; None for a correct file.
        names: Name of each category by id, in the order of the file.
        objects: Number of objects by category id.
    """

    copy: str | None
    names: dict[int, str]
    objects: Counter[int]


def check_annotations(cfg: Config, loaders: Sequence[str]) -> dict[str, CheckedFile]:
    """Check the COCO annotation files of `loaders` and of their evaluators (datasets.coco_annotations).

    Repairs are counted in the log. Files for LVIS and panoptic segmentation have another format and are not checked. In
    `cfg`, a copy in the cache replaces a repaired file, and `cfg.repaired_annotations` maps it to the original. Correct
    files are used as they are. Under torch.distributed all ranks must call this function; rank 0 does the work.
    Returns the files by `get_annotation_path` of the original.
    Raises InputError, on all ranks, for a file that cannot be repaired.
    """
    parts, refusal, files = list(_find_annotated_parts(cfg, loaders)), None, {}
    if rank() == 0:
        try:
            files = _check_files(parts, level=logging.WARNING)
        except ValueError as error:
            refusal = error
    raise_on_all_ranks(refusal)
    files = broadcast(files)
    if not all(Path(file.copy).is_file() for file in files.values() if file.copy):  # on another machine than rank 0
        files = _check_files(parts, level=logging.DEBUG)
    for part, path, *_ in parts:
        part['ann_file'] = files[path].copy or part['ann_file']
    repaired = [dict(original=path, copy=file.copy) for path, file in files.items() if file.copy]
    if repaired:
        cfg.repaired_annotations = repaired
    return files


def get_annotation_path(part: Mapping) -> str:
    """Return the path or URL of the annotation file of a dataset or an evaluator, joined with its data_root."""
    path = str(part['ann_file'])
    return path if '://' in path else os.path.join(part.get('data_root') or '', path)


def get_original_annotations(cfg: Config, path: str | Path) -> str:
    """Return the original path of a repaired annotation file. Other paths are returned unchanged."""
    copies = {entry['copy']: entry['original'] for entry in cfg.get('repaired_annotations', [])}
    return copies.get(str(path), str(path))


def _find_annotated_parts(cfg: Config, loaders: Sequence[str]) -> Iterator[_AnnotatedPart]:
    for loader in loaders:
        evaluators = list(iterate_dicts(cfg.get(loader.replace('dataloader', 'evaluator'))))
        labeled = not any(part.get('format_only') for part in evaluators)
        for part in iterate_dicts(cfg.get(loader)):
            if part.get('ann_file') and _is_of(part, DATASETS, CocoDataset, (CocoPanopticDataset, LVISV05Dataset)):
                masks = any(step.get('with_mask') for step in iterate_dicts(part))
                yield _AnnotatedPart(part, get_annotation_path(part), masks, labeled)
        for part in evaluators:
            if part.get('ann_file') and _is_of(part, METRICS, CocoMetric, (LVISMetric,)):
                yield _AnnotatedPart(part, get_annotation_path(part), 'segm' in part.get('metric', ''), labeled)


def _is_of(part: dict, registry: Registry, kind: type, but: tuple[type, ...]) -> bool:
    found = resolve_class(part, registry)
    return isinstance(found, type) and issubclass(found, kind) and not issubclass(found, but)


def _check_files(parts: Iterable[_AnnotatedPart], *, level: int) -> dict[str, CheckedFile]:
    """Check every file once and write copies of those that need repairs. level: logging level."""
    used: dict[str, list[_AnnotatedPart]] = {}
    for entry in parts:
        used.setdefault(entry.path, []).append(entry)
    files = {}
    for path, entries in used.items():
        try:
            data = get(path, backend_args=entries[0].part.get('backend_args'))
        except OSError as error:
            raise InputError(f'Annotation file is unreadable: {path} ({error.strerror or error}).') from error
        masks = any(entry.masks for entry in entries)
        file = read_annotations(data, path, masks=masks, labeled=all(entry.labeled for entry in entries))
        for what, count in (*file.repairs.items(), *file.notes.items()):
            _log.log(level, 'Annotation file %s: %s (%d)', path, what, count)
        copy = None
        if file.repairs:
            try:
                copy = str(write_repaired(file, path, hash_bytes(data), masks=masks))
            except OSError as error:
                raise InputError(f'Repaired annotation file is not writable: {get_cache_path().parent} '
                                 f'({error.strerror}). Set XDG_CACHE_HOME to another folder.') from error
        names = {category['id']: category['name'] for category in file.content['categories']}
        objects = Counter(one['category_id'] for one in file.content.get('annotations') or ())
        files[path] = CheckedFile(copy, names, objects)
    return files
