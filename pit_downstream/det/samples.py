"""Images of a config's test_dataloader at full size, with their information from the dataset."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.fileio import LocalBackend, get, get_file_backend
from mmengine.registry import init_default_scope

from pit_downstream.results.condition import Condition
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Sample
from pit_downstream.utils.digests import DIGITS, hash_file, hash_files, hash_text
from pit_downstream.utils.spec import Spec
from pit_downstream.datasets.base import UnreadableImage
from pit_downstream.det.annotation_files import get_annotation_path, get_original_annotations
from pit_downstream.det.data_checks import ImageSizeError, iterate_dicts
from pit_downstream.det.pipeline import TestPipeline
from pit_downstream.det.logging_utils import suppress_output

UNREADABLE = 'unreadable'  # instead of the digest of a file
# Evaluator settings that change no number. Metrics are identified by name, files by content
UNCOUNTED = ('metric', 'ann_file', 'backend_args', 'classwise', 'format_only', 'outfile_prefix')


class DetectionSamples:
    """Images of a mmdet dataset, including those without objects, ordered by size.

    A sample's id is the image id as text. Its image is uint8 (3, H, W) in RGB as decoded by the config's loader. Its
    target is the `known` of `TestPipeline.pack`. limit: number of images, evenly spread over the dataset.
    """

    def __init__(self, dataset: BaseDataset, pipeline: TestPipeline, *, spec: Spec, limit: int | None = None):
        if limit is not None and not 1 <= limit <= len(dataset):
            raise InputError(f'expected a limit in 1..{len(dataset)}, the number of images, got {limit}')
        self.dataset, self.pipeline = dataset, pipeline
        words = {'images': len(dataset)} | ({'limit': limit} if limit is not None else {})
        self._spec = Spec.of(spec.name, **{**dict(spec.kwargs), **words})
        count = len(dataset) if limit is None else limit
        infos = [(index, dataset.get_data_info(index)) for index in (i * len(dataset) // count for i in range(count))]
        self._order = [index for index, _ in sorted(infos, key=lambda one: (
            one[1].get('height', 0), one[1].get('width', 0), one[0]))]
        _require_different(str(info['img_id']) for _, info in infos)

    @cached_property
    def name(self) -> str:
        """Spec text for records: annotation files, number of images, limit, and a digest of the images used.

        The digest covers image ids and whole file contents (of VOC also the XML files). All files are read once;
        core.digests caches their hashes.
        """
        infos = [self.info(index) for index in range(len(self))]
        paths = [[path for key, path in info.items() if key.endswith('_path') and isinstance(path, str)]
                 for info in infos]
        digests = iter(hash_images(list(chain.from_iterable(paths)), self.pipeline.backend_args))
        lines = [' '.join([str(info['img_id']), *(next(digests) for _ in part)])
                 for info, part in zip(infos, paths, strict=True)]
        return str(Spec.of(self._spec.name, **{**dict(self._spec.kwargs), 'files': hash_text(*lines)}))

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.dataset.metainfo['classes'])

    @cached_property
    def ids(self) -> list[str]:
        """Image ids as text."""
        return [str(self.info(index)['img_id']) for index in range(len(self))]

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Sample:
        info = self.info(index)
        try:
            image, known = self.pipeline.read(info)
        except ImageSizeError:
            raise
        except (OSError, ValueError) as error:
            raise UnreadableImage(f'{info["img_id"]}', f'{info["img_path"]}: {error}') from error
        return Sample(str(info['img_id']), image, known)

    def info(self, index: int) -> dict:
        """Return the dataset's information on an image: img_id, img_path, instances ..."""
        return self.dataset.get_data_info(self._order[index])

    def at(self, condition: Condition) -> tuple['DetectionSamples', Condition]:
        return self, condition


def build_detection_samples(cfg: Config, *, limit: int | None = None) -> DetectionSamples:
    """Build the dataset of `cfg.test_dataloader`, once. Its name has the annotation files and a digest of each.

    cfg: result of config_utils.read_config, which checks annotation files and makes labels follow the class names.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    pipeline, dataset_cfg = TestPipeline(test_pipeline(cfg)), cfg.test_dataloader.dataset.to_dict()
    for part in iterate_dicts(dataset_cfg):
        if 'pipeline' in part or 'ann_file' in part:
            part.update(pipeline=[], test_mode=True, filter_cfg=None)  # AP includes images without objects
    with suppress_output():
        dataset = DATASETS.build(dataset_cfg)
    parts = [part for part in iterate_dicts([dataset_cfg, cfg.get('test_evaluator')]) if part.get('ann_file')]
    paths = dict.fromkeys(get_original_annotations(cfg, get_annotation_path(part)) for part in parts)
    files = list(dict.fromkeys(map(label_file, paths)))
    kind = dataset_cfg['type'].removesuffix('ByName').removesuffix('Dataset').lower()
    spec = Spec.of(kind, annotations=files[0] if len(files) == 1 else tuple(files))
    return DetectionSamples(dataset, pipeline, spec=spec, limit=limit)


def test_pipeline(cfg: Config) -> list[dict]:
    """Return the one test pipeline of `cfg`, as plain dicts."""
    if not cfg.get('test_dataloader'):
        raise InputError('expected test_dataloader in the config, got none; name a config with its data')
    dataset = cfg.test_dataloader.dataset.to_dict()
    found = [part['pipeline'] for part in iterate_dicts(dataset) if part.get('pipeline')]
    if not found or any(other != found[0] for other in found):
        raise InputError(f'expected one pipeline in test_dataloader.dataset, got {len(found)}; give all parts the same')
    return found[0]


def get_metric_settings(cfg: Config) -> list:
    """Return the settings of `cfg` that change an AP, besides model, pipeline and files: classes and evaluator."""
    classes = [dict(part['metainfo']) for part in iterate_dicts(cfg.get('test_dataloader')) if part.get('metainfo')]
    settings = [{key: value for key, value in part.items() if key not in UNCOUNTED}
                for part in iterate_dicts(cfg.get('test_evaluator'))]
    return [classes, settings]


def label_file(path: str | Path) -> str:
    """Return the label of a file in records: its name and the first 16 hex digits of its SHA-256."""
    return f'{Path(path).name}@{hash_file(path) if Path(path).is_file() else _hash_remote(str(path), None)}'


def hash_images(paths: Sequence[str], backend_args: dict | None = None) -> list[str]:
    """Return the digest of each file's content, in order; 'unreadable' for a file that is missing or unreadable.

    backend_args: of mmengine.fileio. Files of its local backend are hashed by core.digests, others are downloaded.
    """
    if not paths or isinstance(get_file_backend(paths[0], backend_args=backend_args), LocalBackend):
        return hash_files(paths, unreadable=UNREADABLE)
    return [_hash_remote(path, backend_args) for path in paths]


def _hash_remote(path: str, backend_args: dict | None) -> str:
    try:
        return hashlib.sha256(get(path, backend_args=backend_args)).hexdigest()[:DIGITS]
    except (OSError, ValueError):
        return UNREADABLE


def _require_different(ids) -> None:
    seen: set[str] = set()
    for id in ids:
        if id in seen:
            raise InputError(f'expected image ids that differ, got {id!r} twice; number the images of the parts apart')
        seen.add(id)
