"""Corruptions inside a mmdet pipeline, and corrupted datasets on disk: the pixels that the measuring loop shows."""

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image

import pit_downstream.det  # noqa: F401
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.registry import init_default_scope
from pit_downstream.benchmarks.coco_c import list_conditions
from pit_downstream.corruptions import corrupt_images
from pit_downstream.det import saving
from pit_downstream.det.metric import build_ground_truth
from pit_downstream.det.samples import build_detection_samples
from pit_downstream.det.saving import save_images
from pit_downstream.det.ground_truth import GroundTruth
from pit_downstream.utils.errors import InputError
from tests.det import scenes


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    init_default_scope('mmdet')
    return scenes.coco_folder(tmp_path_factory.mktemp('coco') / 'data')


def by_hand(index, name, severity, seed=0):
    image = torch.from_numpy(scenes.pixels(index).transpose(2, 0, 1).copy())
    return corrupt_images(image[None], name, severity, seed=seed, ids=[str(10 + index)])[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize('name', ['frost', 'gaussian_noise', 'jpeg_compression'])  # which all tell colors apart
def test_as_a_transform_it_corrupts_what_the_image_shows(folder, name):
    """mmdet's own Corrupt hands BGR to code for RGB."""
    pipeline = [scenes.PIPELINE[0], dict(type='PitCorrupt', corruption=name, severity=4), scenes.PIPELINE[-1]]
    dataset = DATASETS.build(scenes.coco_config(folder, pipeline=pipeline).test_dataloader.dataset)
    for index in range(5):
        packed = dataset[index]['inputs'].permute(1, 2, 0).numpy()[..., ::-1]
        assert np.array_equal(packed, by_hand(index, name, 4))
        assert torch.equal(dataset[index]['inputs'], dataset[index]['inputs'])  # again the same


def test_the_seed_and_the_image_matter():
    init_default_scope('mmdet')
    gray = np.full((40, 40, 3), 100, np.uint8)
    def corrupted(image, **options):
        step = TRANSFORMS.build(dict(type='PitCorrupt', corruption='gaussian_noise', severity=2, **options))
        return step(dict(img=gray.copy(), img_id=image))['img']
    assert np.array_equal(corrupted(1), corrupted(1)) and not np.array_equal(corrupted(1), corrupted(2))
    assert not np.array_equal(corrupted(1), corrupted(1, seed=1))
    assert np.array_equal(corrupted(1), corrupted(1, order='rgb')[..., ::-1])
    assert (gray == 100).all()


def test_the_type_of_the_pixels_stays():
    step = TRANSFORMS.build(dict(type='PitCorrupt', corruption='fog', severity=1))
    levels, floats = (step(dict(img=np.full((40, 40, 3), 90, kind), img_id=7))['img']
                      for kind in (np.uint8, np.float32))
    assert (levels.dtype, floats.dtype) == (np.uint8, np.float32) and np.array_equal(levels, floats)


@pytest.mark.parametrize('options, words', [
    (dict(corruption='fogg', severity=1), "no corruption named 'fogg'; did you mean fog"),
    (dict(corruption='fog', severity=0), 'severity must be in 1..5, got 0'),
    (dict(corruption='fog', severity=1, order='gbr'), "order is one of bgr, rgb, got 'gbr'"),
])
def test_what_does_not_exist_is_refused_when_it_is_built(options, words):
    with pytest.raises(InputError, match=words):
        TRANSFORMS.build(dict(type='PitCorrupt', **options))


def test_saved_images_are_what_the_loop_shows_and_are_written_once(folder, tmp_path, monkeypatch):
    cfg = scenes.coco_config(folder)
    samples = build_detection_samples(cfg)
    truth = build_ground_truth(cfg, samples)
    chosen = list_conditions(['fog', 'gaussian_noise'], [1, 4])
    assert save_images(samples, truth, chosen, tmp_path / 'c', seed=3, batch_size=4) == 20
    for index in range(5):
        for name in ('fog', 'gaussian_noise'):
            for severity in (1, 4):
                with Image.open(tmp_path / 'c' / name / str(severity) / f'{"abcde"[index]}.png') as picture:
                    assert np.array_equal(np.asarray(picture), by_hand(index, name, severity, seed=3))
    assert json.loads((tmp_path / 'c/annotations.json').read_text()) == truth.content  # they were PNG before
    (tmp_path / 'c/fog/4/b.png').unlink()
    written = []
    monkeypatch.setattr(saving, '_write', lambda image, path: written.append(path))
    assert save_images(samples, truth, chosen, tmp_path / 'c', seed=3) == 2  # the severities of one image together
    assert tmp_path / 'c/fog/4/b.png' in written and len(written) == 2


@pytest.mark.parametrize('first, second', [('/away/a.png', 'b.png'), ('../a.png', 'b.png'), ('x/a.jpg', 'x/a.png')])
def test_copies_stay_in_the_folder_and_apart(folder, tmp_path, first, second):
    """Names that are absolute, lead out of the folder or differ in their suffix alone give way to ids."""
    cfg = scenes.coco_config(folder)
    truth = copy.deepcopy(build_ground_truth(cfg, build_detection_samples(cfg)).content)
    truth['images'][0]['file_name'], truth['images'][1]['file_name'] = first, second
    assert save_images(build_detection_samples(cfg), GroundTruth(truth, [7, 3]), list_conditions(['contrast'], [2]),
                       tmp_path) == 5
    assert sorted(path.name for path in (tmp_path / 'contrast/2').iterdir()) == [f'{id}.png' for id in range(10, 15)]
    said = json.loads((tmp_path / 'annotations.json').read_text())['images']
    assert {image['id']: image['file_name'] for image in said} == {id: f'{id}.png' for id in range(10, 15)}


def test_saved_sets_are_read_by_mmdet_and_jpeg_is_possible(folder, tmp_path):
    cfg = scenes.coco_config(folder)
    samples = build_detection_samples(cfg, limit=2)
    save_images(samples, build_ground_truth(cfg, samples), list_conditions(['fog'], [2], order='bgr'), tmp_path,
                format='jpg')
    cfg.test_dataloader.dataset.update(data_root=str(tmp_path), data_prefix=dict(img='fog,order=bgr/2/'))
    read = build_detection_samples(cfg)
    assert [read[index].id for index in range(2)] == [samples[index].id for index in range(2)]
    with pytest.raises(ValueError, match='format is one of png, jpg, got .gif.'):
        save_images(samples, build_ground_truth(cfg, samples), [], tmp_path, format='gif')
