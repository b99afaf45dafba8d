"""The COCO annotation files that a config names: checked before any work, and repaired for all who read them."""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mmdet.datasets import CocoDataset, CocoPanopticDataset, LVISV05Dataset
from mmdet.evaluation import CocoMetric, LVISMetric
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config
from mmengine.fileio import get
from mmengine.registry import Registry

from ..core.digests import cache_path, digest_bytes
from ..datasets.coco_annotations import read_annotations, write_repaired
from ..evaluation.ranks import from_first, rank, refuse_together
from .data import dicts_in

_log = logging.getLogger(__name__)


class _AnnotatedPart(NamedTuple):
    """A dataset or evaluator of a config that reads a COCO annotation file."""

    part: dict
    path: str
    masks: bool
    labeled: bool


def check_annotations(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Check the COCO annotation files of `loaders` and of their evaluators (datasets.coco_annotations) and count, in
    the log, what was repaired.

    In `cfg`, a copy in the cache replaces a repaired file; `cfg.repaired_annotations` maps it to the original. Correct
    files are used as they are. Under torch.distributed rank 0 does the work, all ranks must call it.
    Raises ValueError, on all ranks, for a file that cannot be repaired.
    """
    parts, refusal, repaired = list(_annotated_parts(cfg, loaders)), None, {}
    if rank() == 0:
        try:
            repaired = _repair(parts, level=logging.WARNING)
        except ValueError as error:
            refusal = error
    refuse_together(refusal)
    repaired = from_first(repaired)
    if not all(Path(copy).is_file() for copy in repaired.values()):  # on another machine than rank 0
        repaired = _repair(parts, level=logging.DEBUG)
    for part, path, *_ in parts:
        if path in repaired:
            part['ann_file'] = repaired[path]
    if repaired:
        cfg.repaired_annotations = [dict(original=path, copy=copy) for path, copy in repaired.items()]


def original_annotations(cfg: Config, path: str | Path) -> str:
    """Return the path of the annotation file of which `path` is a repaired copy; `path` for all other files."""
    copies = {entry['copy']: entry['original'] for entry in cfg.get('repaired_annotations', [])}
    return copies.get(str(path), str(path))


def _annotated_parts(cfg: Config, loaders: tuple[str, ...]) -> Iterator[_AnnotatedPart]:
    """LVIS and panoptic files have another format."""
    for loader in loaders:
        evaluators = list(dicts_in(cfg.get(loader.replace('dataloader', 'evaluator'))))
        labeled = not any(part.get('format_only') for part in evaluators)
        for part in dicts_in(cfg.get(loader)):
            if part.get('ann_file') and _is_of(part, DATASETS, CocoDataset, (CocoPanopticDataset, LVISV05Dataset)):
                root = part.get('data_root') or ''
                path = part['ann_file'] if '://' in part['ann_file'] else os.path.join(root, part['ann_file'])
                yield _AnnotatedPart(part, path, any(step.get('with_mask') for step in dicts_in(part)), labeled)
        for part in evaluators:
            if part.get('ann_file') and _is_of(part, METRICS, CocoMetric, (LVISMetric,)):
                yield _AnnotatedPart(part, part['ann_file'], 'segm' in part.get('metric', ''), labeled)


def _is_of(part: dict, registry: Registry, kind: type, but: tuple[type, ...]) -> bool:
    found = part.get('type')
    found = registry.get(found) if isinstance(found, str) else found
    return isinstance(found, type) and issubclass(found, kind) and not issubclass(found, but)


def _repair(parts: Iterable[_AnnotatedPart], *, level: int) -> dict[str, str]:
    """Check every file once; return the paths of repaired copies by those of the originals."""
    used: dict[str, list[_AnnotatedPart]] = {}
    for entry in parts:
        used.setdefault(entry.path, []).append(entry)
    repaired = {}
    for path, entries in used.items():
        try:
            data = get(path, backend_args=entries[0].part.get('backend_args'))
        except OSError as error:
            raise ValueError(f'Annotation file is unreadable: {path} ({error.strerror or error}).') from error
        masks = any(entry.masks for entry in entries)
        file = read_annotations(data, path, masks=masks, labeled=all(entry.labeled for entry in entries))
        for what, count in (*file.repairs.items(), *file.notes.items()):
            _log.log(level, 'Annotation file %s: %s (%d)', path, what, count)
        if file.repairs:
            try:
                repaired[path] = str(write_repaired(file, path, digest_bytes(data), masks=masks))
            except OSError as error:
                raise ValueError(f'Repaired annotation file is not writable: {cache_path().parent} '
                                 f'({error.strerror}). Set XDG_CACHE_HOME to another folder.') from error
    return repaired
