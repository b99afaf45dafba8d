"""Ground-truth objects in COCO's format, read from the file that the config names or built from the dataset."""

import importlib.util
from collections.abc import Sequence
from functools import cached_property
from importlib import metadata
from typing import Any

from mmengine.fileio import get

from pit_downstream.datasets.coco_annotations import read_annotations
from pit_downstream.det.classes import match_category_ids
from pit_downstream.det.logging_utils import suppress_output
from pit_downstream.det.samples import DetectionSamples


def load_coco_tools() -> tuple[type, type, str]:
    """Return (COCO, COCOeval, name and version) of faster-coco-eval if it is installed, else of pycocotools.

    The former gives the same numbers in compiled code.
    """
    if importlib.util.find_spec('faster_coco_eval') is not None:
        from faster_coco_eval import COCO, COCOeval_faster
        return COCO, COCOeval_faster, f'faster-coco-eval {metadata.version("faster-coco-eval")}'
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    return COCO, COCOeval, f'pycocotools {metadata.version("pycocotools")}'


class GroundTruth:
    """Ground truth of a dataset in COCO's format.

    content: dict of a COCO annotation file. category_ids: the file's id for every label 0, 1, 2 ... of the model.
    Metrics share one object: copies of them for each condition do not copy it.
    """

    def __init__(self, content: dict[str, Any], category_ids: Sequence[int]):
        self.content, self.category_ids = content, tuple(category_ids)

    def __deepcopy__(self, memo: dict) -> 'GroundTruth':
        return self

    @cached_property
    def image_numbers(self) -> dict[Any, int]:
        """Integer id by image id: faster-coco-eval takes no others. Integers stay, names are numbered in order."""
        ids = [image['id'] for image in self.content['images']]
        if all(type(id) is int for id in ids):
            return dict(zip(ids, ids))
        return {id: number for number, id in enumerate(sorted(ids))}

    @cached_property
    def api(self):
        """Indexed COCO object of `load_coco_tools`, with the ids of `image_numbers`."""
        api = load_coco_tools()[0]()
        numbers = self.image_numbers
        api.dataset = self.content if all(id is number for id, number in numbers.items()) else {
            **self.content,
            'images': [{**image, 'id': numbers[image['id']]} for image in self.content['images']],
            'annotations': [{**one, 'image_id': numbers[one['image_id']]} for one in self.content['annotations']]}
        with suppress_output():
            api.createIndex()
        return api

    @classmethod
    def of_file(cls, path: str, classes: Sequence[str], *, original: str | None = None) -> 'GroundTruth':
        """Read a COCO file. Labels follow `classes`, for any order of the categories in the file.

        original: path for errors, if `path` is a repaired copy of it.
        """
        content = read_annotations(get(path), original or path).content
        return cls(content, match_category_ids(content['categories'], classes, original or path))

    @classmethod
    def of_samples(cls, samples: DetectionSamples) -> 'GroundTruth':
        """Build the ground truth of a dataset that is no COCO file, such as VOC's XML.

        Areas are those of the boxes. Objects marked difficult are ignored like crowds.
        """
        content: dict[str, list] = {'images': [], 'annotations': [], 'categories': [
            {'id': label, 'name': name} for label, name in enumerate(samples.classes)]}
        for info in map(samples.info, range(len(samples))):
            content['images'].append({'id': info['img_id'], 'file_name': info['img_path'].rsplit('/', 1)[-1],
                                      'height': info['height'], 'width': info['width']})
            for instance in info['instances']:
                left, top, right, bottom = instance['bbox']
                content['annotations'].append({
                    'id': len(content['annotations']) + 1, 'image_id': info['img_id'],
                    'category_id': instance['bbox_label'], 'bbox': [left, top, right - left, bottom - top],
                    'area': (right - left) * (bottom - top), 'iscrowd': instance.get('ignore_flag', 0),
                    **({'segmentation': instance['mask']} if instance.get('mask') else {})})
        return cls(content, range(len(samples.classes)))
