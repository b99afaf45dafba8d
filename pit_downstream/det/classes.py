"""Classes of detection data, matched by name in any order of the file and checked against the model's heads."""

import inspect
import logging
import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmdet.datasets import BaseDetDataset, CocoDataset, CocoPanopticDataset, XMLDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS, METRICS, MODELS
from mmengine.config import Config, DictAction
from mmengine.fileio import list_from_file

from pit_downstream.evaluation.distributed import rank
from pit_downstream.det.annotation_files import CheckedFile, get_annotation_path, get_original_annotations
from pit_downstream.det.data_checks import LOADERS, resolve_class, iterate_dicts
from pit_downstream.utils.errors import InputError

_log = logging.getLogger(__name__)

# Model parts whose `num_classes` is not the number of classes in the data
NOT_HEADS = ('backbone', 'neck', 'data_preprocessor', 'init_cfg', 'train_cfg', 'test_cfg', 'rpn_head', 'semantic_head',
             'track_head', 'reid')
SHOWN = 200  # characters of names in a message


def match_category_ids(categories: Sequence[Mapping], classes: Sequence[str], file: str) -> list[int]:
    """Return the category id of every class, in the order of `classes`.

    Args:
        categories: Categories of a COCO file.
        classes: Class names of the model, in label order.
        file: Name for the error.

    Raises:
        InputError: No category or two categories have the name of a class.
    """
    names = [category['name'] for category in categories]
    for wrong, found in (('no category', [name for name in classes if name not in names]),
                         ('two categories', [name for name in classes if names.count(name) > 1])):
        if found:
            raise InputError(f'{file} has {wrong} named {join_names(found)} (categories: {join_names(names)}). Set '
                             'metainfo.classes to names of the file, or correct the file.')
    return [categories[names.index(name)]['id'] for name in classes]


class _CocoByName(COCO):
    """mmdet's COCO with category ids in the order of `cat_names`."""

    def get_cat_ids(self, cat_names=(), sup_names=(), cat_ids=()):
        if cat_names:
            return match_category_ids(self.dataset['categories'], cat_names, 'The annotation file')
        return super().get_cat_ids(cat_names, sup_names, cat_ids)


@DATASETS.register_module()
class CocoDatasetByName(CocoDataset):
    """CocoDataset with labels in the order of `metainfo.classes` instead of the file."""

    COCOAPI = _CocoByName


@METRICS.register_module()
class CocoMetricByName(CocoMetric):
    """CocoMetric for labels in the order of `metainfo.classes` instead of the file.

    `cat_ids` are sorted, as in COCOeval, because CocoMetric reads the AP of each class by position.
    """

    ids_of_labels: Sequence[int] = ()
    cat_ids: Sequence[int] | None

    def compute_metrics(self, results: list) -> dict[str, float]:
        if self._coco_api is not None and self.cat_ids is None:
            self.ids_of_labels = match_category_ids(self._coco_api.dataset['categories'], self.dataset_meta['classes'],
                                                    'The annotation file of the evaluator')
            self.cat_ids = sorted(self.ids_of_labels)
        return super().compute_metrics(results)

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict:
        ascending = self.cat_ids
        self.cat_ids = self.ids_of_labels or ascending
        try:
            return super().results2json(results, outfile_prefix)
        finally:
            self.cat_ids = ascending


def match_classes(cfg: Config, loaders: Sequence[str], files: Mapping[str, CheckedFile]) -> None:
    """Make all labels in `cfg` follow `metainfo.classes`, in place, and check the classes of `loaders`.

    files: result of check_annotations. A subset of the classes is allowed: objects of other categories are counted in a
    warning.

    Raises:
        InputError: An annotation file does not have a class, datasets have different classes, or a head of the
            model has another number of classes.
    """
    evaluators = {loader: loader.replace('dataloader', 'evaluator') for loader in LOADERS}
    for loader, evaluator in evaluators.items():
        for key, registry, old, new in ((loader, DATASETS, CocoDataset, CocoDatasetByName),
                                        (evaluator, METRICS, CocoMetric, CocoMetricByName)):
            for part in iterate_dicts(cfg.get(key)):
                if resolve_class(part, registry) is old:
                    part['type'] = new.__name__
    datasets = {path: part for loader in loaders for path, part in _iterate_datasets(cfg, loader)}
    names = read_data_classes(cfg, loaders)
    if not datasets:
        return
    evaluated = [part for loader in loaders for part in iterate_dicts(cfg.get(evaluators[loader]))
                 if part.get('type') == CocoMetricByName.__name__ and part.get('ann_file')]
    _check_coco_files([*datasets.values(), *evaluated], files, names, _build_advice(cfg, datasets))
    _check_xml_files([*datasets.values()], names)
    for loader in loaders:
        _warn_of_other_images(cfg, loader, evaluators[loader])
    if not any(resolve_class(part, DATASETS) is CocoPanopticDataset for part in datasets.values()):
        _require_heads(cfg, len(names))


def read_data_classes(cfg: Config, loaders: Sequence[str]) -> tuple[str, ...]:
    """Return the class names of the datasets in `loaders`. Raises InputError if they differ."""
    classes = {path: _read_class_names(path, part) for loader in loaders
               for path, part in _iterate_datasets(cfg, loader)}
    if len(set(classes.values())) > 1:
        lists = '; '.join(f'{path}: {join_names(names)}' for path, names in classes.items())
        raise InputError(f'Datasets have different metainfo.classes: {lists}. Set the same in all of them.')
    return next(iter(classes.values()), ())


def find_heads(model: Mapping) -> Iterator[tuple[str, int]]:
    """Yield every number of data classes in a model's config, such as ('model.bbox_head.num_classes', 80).

    A head without `num_classes` has the default of its class. Detectors with text as classes yield nothing.
    """
    if any('language_model' in part for part in iterate_dicts(model)):
        return
    for path, part in _walk(model, 'model', skip=NOT_HEADS):
        for key in ('num_classes', 'num_things_classes'):
            if key in part and not part.get('class_agnostic'):
                yield f'{path}.{key}', part[key]
        if 'num_classes' not in part and path.rstrip('.0123456789').endswith('head'):
            default = _find_default(resolve_class(part, MODELS), 'num_classes')
            if default is not None and not part.get('class_agnostic'):
                yield f'{path}.num_classes', default


def _require_heads(cfg: Config, count: int) -> None:
    unfit = {path: number for path, number in find_heads(cfg.model) if number != count}
    if unfit:
        raise InputError(
            f'The model is for another number of classes than the {count} of the data: '
            f'{", ".join(f"{path} is {number}" for path, number in unfit.items())}. Set them in the config, or pass '
            f'--cfg-options {" ".join(f"{path}={count}" for path in unfit)}')


def _check_coco_files(parts: Sequence[Mapping], files: Mapping[str, CheckedFile], classes: Sequence[str], advice
                      ) -> None:
    """Check the class names in COCO files, each file once. parts: configs of datasets and evaluators."""
    originals = {file.copy or path: path for path, file in files.items()}
    seen = set()
    for part in parts:
        cls = resolve_class(part, DATASETS) if part.get('type') != CocoMetricByName.__name__ else CocoDatasetByName
        path = originals.get(get_annotation_path(part))
        if path is None or path in seen or getattr(cls, 'load_data_list', None) is not CocoDataset.load_data_list:
            continue
        seen.add(path)
        names = files[path].names
        if not set(classes) <= set(names.values()):
            missing = [name for name in classes if name not in names.values()]
            raise InputError(f'{path} has no category named {join_names(missing)} (categories: '
                             f'{join_names(names.values())}). {advice(tuple(names.values()))}')
        in_file = tuple(name for name in names.values() if name in classes)
        if cls is not CocoDatasetByName and in_file != tuple(classes):
            raise InputError(f'{part["type"]} numbers labels by the order of the categories in {path}, which is '
                             f'{join_names(in_file)}, but metainfo.classes is {join_names(classes)}. '
                             'List them in one order.')
        _warn_of_others(path, Counter({names[id]: count for id, count in files[path].objects.items()}), classes)


def _check_xml_files(parts: Sequence[Mapping], classes: Sequence[str]) -> None:
    """Count and check the class names in VOC's XML files, which list no categories."""
    for part in parts:
        if getattr(resolve_class(part, DATASETS), 'load_data_list', None) is not XMLDataset.load_data_list:
            continue
        path = get_annotation_path(part)
        if '://' in path:
            continue
        folder = Path(part.get('data_root') or '', part.get('data_prefix', {}).get('sub_data_root', ''),
                      part.get('ann_subdir', 'Annotations'))
        names: Counter[str | None] = Counter()
        for image in list_from_file(path):
            file = folder / f'{image}.xml'
            try:
                names.update(name.text for name in ElementTree.parse(file).iterfind('object/name'))
            except (OSError, ElementTree.ParseError) as error:
                reason = getattr(error, 'strerror', None) or error
                raise InputError(f'Annotation file is unreadable: {file} ({reason}). Replace it, or remove {image} '
                                 f'from {path}.') from error
        if names and not set(names) & set(classes):
            raise InputError(f'{path} has no object of metainfo.classes, {join_names(classes)} (names: '
                             f'{join_names(names)}). Set metainfo.classes to these names.')
        _warn_of_others(path, names, classes)


def _warn_of_others(path: str, names: Counter, classes: Sequence[str]) -> None:
    others = {str(name): count for name, count in names.items() if name not in classes}
    if others and rank() == 0:
        empty = [name for name in classes if name not in names]
        empty_classes = f'; no object has the class {join_names(empty)}' if empty else ''
        _log.warning('%s: %d objects of categories that are not in metainfo.classes are left out: %s%s', path,
                     sum(others.values()), join_names(others), empty_classes)


def _warn_of_other_images(cfg: Config, loader: str, evaluator: str) -> None:
    """Warn if the evaluator of `loader` reads another annotation file than its dataset."""
    files = [get_original_annotations(cfg, get_annotation_path(part)) for _, part in _iterate_datasets(cfg, loader)]
    for part in iterate_dicts(cfg.get(evaluator)):
        if part.get('type') == CocoMetricByName.__name__ and part.get('ann_file') and rank() == 0:
            path = get_original_annotations(cfg, get_annotation_path(part))
            if os.path.realpath(path) not in map(os.path.realpath, files):
                _log.warning('%s reads %s, %s reads %s: objects in images that are in the first alone count as missed. '
                             'Set %s.ann_file to the file of the dataset', evaluator, path, loader, join_names(files),
                             evaluator)


def _build_advice(cfg: Config, datasets: Mapping[str, Mapping]):
    """Return a function that converts the names in a file to instructions for training on them."""
    def format_advice(names: Sequence[str]) -> str:
        keys = [f'{path}.metainfo.classes' for path in datasets]
        text = repr(names).replace(' ', '')
        counts = ' '.join(f'{path}={len(names)}' for path, _ in find_heads(cfg.model))
        if len(text) <= SHOWN and DictAction._parse_iterable(text) == names:
            options = ' '.join(f'{key}="{text}"' for key in keys)
            return f'To use the categories of the file, pass --cfg-options {options} {counts}'
        return f'To use the categories of the file, set {", ".join(keys)} in a config, and {counts}'
    return format_advice


def _iterate_datasets(cfg: Config, loader: str) -> Iterator[tuple[str, Mapping]]:
    """Yield path and config of every annotated dataset in a loader, also inside wrappers such as RepeatDataset."""
    for path, part in _walk(cfg.get(loader, {}).get('dataset'), f'{loader}.dataset'):
        cls = resolve_class(part, DATASETS)
        if part.get('ann_file') and isinstance(cls, type) and issubclass(cls, BaseDetDataset):
            yield path, part


def _read_class_names(path: str, part: Mapping) -> tuple[str, ...]:
    names = resolve_class(part, DATASETS)._load_metainfo(part.get('metainfo')).get('classes') or ()
    if isinstance(names, str):
        raise InputError(f'{path}.metainfo.classes must be a list of names, got {names[:SHOWN]!r}. A tuple of one name '
                         f"has a comma: ('{names[:SHOWN]}',)")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f'{path}.metainfo.classes has {join_names(twice)} twice. Give every class another name.')
    return tuple(names)


def _find_default(cls: type | None, name: str) -> int | None:
    """Return the integer default of a constructor argument from the first class in the MRO that has it, or None."""
    for one in inspect.getmro(cls) if isinstance(cls, type) else ():
        found = inspect.signature(vars(one)['__init__']).parameters.get(name) if '__init__' in vars(one) else None
        if found is not None:
            return found.default if isinstance(found.default, int) else None
    return None


def _walk(node, path: str, skip: Sequence[str] = ()) -> Iterator[tuple[str, Mapping]]:
    """Yield every dict in nested dicts and lists with its path, outer ones first."""
    if isinstance(node, Mapping):
        yield path, node
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, child in children:
        if key not in skip:
            yield from _walk(child, f'{path}.{key}', skip)


def join_names(names) -> str:
    """Join names, truncated to `SHOWN` characters."""
    text = ', '.join(map(str, names))
    return text if len(text) <= SHOWN else f'{text[:SHOWN]} ... ({len(names)} names)'
