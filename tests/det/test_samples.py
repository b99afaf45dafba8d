"""Images and objects of small datasets, as mmdet reads them and as the files say."""

import json
import re

import numpy as np
import pytest
import torch
from mmengine.fileio import BaseStorageBackend, register_backend
from PIL import Image

import pit_downstream.det  # noqa: F401
from pit_downstream.results.condition import CLEAN
from pit_downstream.datasets.base import UnreadableImage
from pit_downstream.det.samples import get_metric_settings, build_detection_samples, hash_images
from pit_downstream.det.ground_truth import GroundTruth
from tests.det import scenes


def test_images_come_at_full_size_in_rgb_grouped_by_size(folder):
    """Number 13, which has no object, stays."""
    samples = build_detection_samples(scenes.coco_config(folder))
    taken = [samples[index] for index in range(len(samples))]
    assert [sample.id for sample in taken] == ['13', '10', '12', '14', '11']  # 40 x 40, 48 x 64 three times, 64 x 48
    for sample in taken:
        index = int(sample.id) - 10
        assert sample.image.dtype == torch.uint8
        assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), scenes.pixels(index))
        assert sample.target['img_id'] == int(sample.id) and 'img' not in sample.target
    assert samples.at(CLEAN) == (samples, CLEAN) and samples.classes == scenes.CLASSES


def test_a_filter_and_a_training_mode_in_the_config_leave_no_image_out(folder):
    cfg = scenes.coco_config(folder)
    cfg.test_dataloader.dataset.update(test_mode=False, filter_cfg=dict(filter_empty_gt=True, min_size=45))
    assert len(build_detection_samples(cfg)) == 5


def test_name_contains_annotations_and_limit(folder, tmp_path):
    name = build_detection_samples(scenes.coco_config(folder)).name
    assert re.fullmatch(r"coco\(annotations='annotations.json@[0-9a-f]{16}', files='[0-9a-f]{16}', images=5\)", name)
    few = build_detection_samples(scenes.coco_config(folder), limit=2)
    assert few.name.endswith(', images=5, limit=2)') and few.name.split('files')[0] == name.split('files')[0]
    assert sorted(few[index].id for index in range(2)) == ['10', '12']
    other = scenes.coco_folder(tmp_path / 'data')
    content = json.loads((other / 'annotations.json').read_text())
    content['annotations'].pop()
    (other / 'annotations.json').write_text(json.dumps(content))
    assert build_detection_samples(scenes.coco_config(other)).name != name
    cfg = scenes.coco_config(folder)
    cfg.test_evaluator.ann_file = str(other / 'annotations.json')  # then AP rests on this file, too
    assert build_detection_samples(cfg).name.count('annotations.json@') == 2
    for limit in (0, 6):
        with pytest.raises(ValueError, match=f'expected a limit in 1..5, the number of images, got {limit}'):
            build_detection_samples(scenes.coco_config(folder), limit=limit)


def test_only_settings_that_change_an_ap_change_the_name(folder, tmp_path):
    """A digest of it stands in the records: those of other classes or IoUs must not be taken for these."""
    cfg, elsewhere = scenes.coco_config(folder), scenes.coco_config(tmp_path)
    elsewhere.test_evaluator.update(metric=['bbox', 'segm'], classwise=True)
    assert get_metric_settings(cfg) == get_metric_settings(elsewhere)
    for part, change in ((cfg.test_dataloader.dataset, dict(metainfo=dict(classes=('cup', 'plate')))),
                         (cfg.test_evaluator, dict(iou_thrs=[.5])), (cfg.test_evaluator, dict(type='VOCMetric'))):
        before = get_metric_settings(cfg)
        part.update(change)
        assert get_metric_settings(cfg) != before


@pytest.mark.parametrize('content', [b'', b'no image at all', None])
def test_what_is_no_image_is_named(tmp_path, content):
    folder = scenes.coco_folder(tmp_path / 'data')
    (folder / 'images' / 'd.png').write_bytes(content) if content is not None else (folder / 'images/d.png').unlink()
    cfg = scenes.coco_config(folder)
    cfg.test_dataloader.dataset.pipeline[0] = dict(type='LoadImageOrSkip', on_broken='keep')  # as the tools have it
    with pytest.raises(UnreadableImage, match=r'13 could not be read: .*images/d.png'):
        build_detection_samples(cfg)[0]


def test_several_data_sets_as_one(folder, tmp_path):
    one, other = (scenes.coco_config(where).test_dataloader.dataset for where in
                  (folder, scenes.coco_folder(tmp_path / 'data')))
    cfg = scenes.coco_config(folder)
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[one, other])
    with pytest.raises(ValueError, match="expected image ids that differ, got '10' twice"):
        build_detection_samples(cfg)
    path = tmp_path / 'data' / 'annotations.json'
    content = json.loads(path.read_text())
    for kind, key in (('images', 'id'), ('annotations', 'image_id')):
        for item in content[kind]:
            item[key] += 100
    path.write_text(json.dumps(content))
    samples = build_detection_samples(cfg)
    assert len(samples) == 10 and samples.name.startswith("concat(annotations=('annotations.json@")
    assert len(GroundTruth.of_samples(samples).content['annotations']) == 2 * 6


@pytest.mark.parametrize('spoil, words', [
    (lambda pipeline: pipeline.pop(0), 'expected one LoadImageFromFile, or a class below it, in the test pipeline, got '
                                       'Resize, LoadAnnotations, PackDetInputs'),
    (lambda pipeline: pipeline.insert(1, dict(type='Normalize', mean=[0], std=[1])),
     'expected images to be normalized'),
    (lambda pipeline: pipeline.clear(), 'expected one pipeline in test_dataloader.dataset, got 0'),
])
def test_pipelines_that_cannot_be_cut_are_refused(folder, spoil, words):
    cfg = scenes.coco_config(folder)
    spoil(cfg.test_dataloader.dataset.pipeline)
    with pytest.raises(ValueError, match=words):
        build_detection_samples(cfg)
    cfg.pop('test_dataloader')
    with pytest.raises(ValueError, match='expected test_dataloader in the config, got none'):
        build_detection_samples(cfg)


def test_ground_truth_of_a_file_keeps_everything_and_numbers_labels_by_name(folder):
    truth = GroundTruth.of_file(str(folder / 'annotations.json'), scenes.CLASSES)
    assert truth.category_ids == (7, 3)
    assert GroundTruth.of_file(str(folder / 'annotations.json'), scenes.CLASSES[::-1]).category_ids == (3, 7)
    assert truth.content == json.loads((folder / 'annotations.json').read_text())
    with pytest.raises(ValueError, match='annotations.json has no category named plate .categories: cup, bowl'):
        GroundTruth.of_file(str(folder / 'annotations.json'), (*scenes.CLASSES, 'plate'))


def test_ground_truth_of_voc_equals_that_of_coco(folder, tmp_path):
    samples = build_detection_samples(scenes.voc_config(scenes.voc_folder(tmp_path / 'data')))
    assert samples.name.startswith("voc(annotations='test.txt@")
    with Image.open(tmp_path / 'data/VOC2007/JPEGImages/13.jpg') as picture:
        decoded = np.asarray(picture)
    first = next(sample for sample in (samples[index] for index in range(5)) if sample.id == '13')
    assert np.abs(first.image.permute(1, 2, 0).numpy().astype(int) - decoded).max() <= 3  # decoders differ by rounding
    truth = GroundTruth.of_samples(samples).content
    got = sorted((int(one['image_id']), scenes.CLASSES[one['category_id']], *one['bbox'], one['iscrowd'])
                 for one in truth['annotations'])
    assert got == sorted([(*one, 0) for one in scenes.OBJECTS] + [(*scenes.CROWD, 1)])
    assert [image['id'] for image in truth['images']] == ['13', '10', '12', '14', '11']
    assert all(one['area'] == one['bbox'][2] * one['bbox'][3] for one in truth['annotations'])


def test_digests_of_remote_images_are_those_of_their_content(folder):
    """A backend of mmengine that reads other places; there a missing file is unreadable, too."""
    @register_backend('elsewhere', force=True)
    class Elsewhere(BaseStorageBackend):
        def get(self, path):
            return (folder / 'images' / path.removeprefix('store:')).read_bytes()

        def get_text(self, path, encoding='utf-8'):
            raise NotImplementedError
    local = hash_images([str(folder / 'images/a.png'), str(folder / 'images/none.png')])
    assert re.fullmatch('[0-9a-f]{16}', local[0]) and local[1] == 'unreadable'
    assert hash_images(['store:a.png', 'store:none.png'], {'backend': 'elsewhere'}) == local
