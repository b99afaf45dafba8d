"""Absent datasets are found before any work, broken images are named and survived."""

import io
import os
import re

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

import pit_downstream.det  # noqa: F401
from pit_downstream.det import data_checks as data
from pit_downstream.utils.errors import InputError
from tests.det import scenes


def encoded(kind):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'BMP'])
def test_whole_images_have_no_fault(kind):
    assert data.find_image_fault(encoded(kind)) is None


def test_bytes_after_the_end_are_no_fault():
    assert data.find_image_fault(encoded('JPEG') + b'appended by a camera') is None


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_truncated_images_are_found(kind):
    content = encoded(kind)
    assert 'truncated' in data.find_image_fault(content[:len(content) // 2])


def test_no_image_at_all_is_found():
    assert data.find_image_fault(b'<html>not found</html>')
    assert data.find_image_fault(b'')


@pytest.fixture
def truncated(tmp_path):
    content = encoded('JPEG')
    path = tmp_path / 'half.jpg'
    path.write_bytes(content[:len(content) * 2 // 3])
    return str(path)


def test_training_names_a_broken_image_once_and_skips_it(truncated, logged):
    load = data.LoadImageOrSkip(on_broken='skip')
    assert load(dict(img_path=truncated)) is None and load(dict(img_path=truncated)) is None
    assert len(logged) == 1
    assert re.search(r'half.jpg is broken \(.*truncated.*\): another image is trained on', logged[0])


def test_evaluation_keeps_what_decodes(truncated, logged):
    results = data.LoadImageOrSkip(on_broken='keep')(dict(img_path=truncated))
    assert results['img'].shape == (40, 50, 3) and len(logged) == 1


def test_decodable_part_of_a_rotated_image_is_rotated(tmp_path):
    """As OpenCV turns it when it is whole; the boxes are those of the turned one."""
    turned, content = Image.Exif(), io.BytesIO()
    turned[0x0112] = 6
    Image.new('RGB', (50, 40)).save(content, 'JPEG', exif=turned)
    for length in (len(content.getvalue()), len(content.getvalue()) - 2):
        path = tmp_path / f'{length}.jpg'
        path.write_bytes(content.getvalue()[:length])
        assert data.LoadImageOrSkip(on_broken='keep')(dict(img_path=str(path)))['img'].shape == (50, 40, 3)


@pytest.fixture(params=['damaged PNG', 'no image', 'empty', 'missing', 'dangling link', 'folder', '179 megapixels'])
def broken(request, tmp_path):
    """A path in a Latin-1 file name's bytes at which no image can be read."""
    path = tmp_path / os.fsdecode('é.png'.encode('latin-1'))
    if request.param == 'damaged PNG':  # its end is intact
        content = bytearray(encoded('PNG'))
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    elif request.param == '179 megapixels':
        Image.new('1', (1 << 14, 11000)).save(path)  # 180 million pixels in 24 kB
    elif request.param == 'dangling link':
        path.symlink_to('nowhere')
    elif request.param == 'folder':
        path.mkdir()
    elif request.param != 'missing':
        path.write_bytes(b'nothing' if request.param == 'no image' else b'')
    return str(path)


def test_training_replaces_broken_files(broken, logged):
    assert data.LoadImageOrSkip(on_broken='skip')(dict(img_path=broken)) is None
    assert len(logged) == 1 and logged[0].isprintable() and '.png is broken' in logged[0]
    assert ' at 0x' not in logged[0]


def test_validation_shows_gray_in_place_of_broken_files(broken, logged, request):
    results = data.LoadImageOrSkip(on_broken='keep')(dict(img_path=broken, height=40, width=50))
    assert results['img'].dtype == np.uint8 and results['fault']
    assert results['img'].shape == (40, 50, 3)
    decodes = 'damaged PNG' in request.node.name  # in part
    assert (results['img'] == 128).all() != decodes
    assert len(logged) == 1


def test_evaluation_refuses_broken_files(broken):
    with pytest.raises(ValueError):
        data.LoadImageOrSkip(on_broken='raise')(dict(img_path=broken))


def test_training_without_a_readable_image_is_refused(tmp_path):
    """mmengine's dataset draws up to 1000 other images; afterwards it raises an Exception without a file name."""
    folder = scenes.coco_folder(tmp_path / 'data')
    for path in (folder / 'images').iterdir():
        path.write_bytes(b'')
    init_default_scope('mmdet')
    dataset = DATASETS.build(dict(
        type='CocoDataset', ann_file=str(folder / 'annotations.json'), data_prefix=dict(img=f'{folder}/images/'),
        metainfo=dict(classes=scenes.CLASSES), pipeline=[dict(type='LoadImageOrSkip', on_broken='skip')]))
    with pytest.raises(ValueError, match=r'images/[a-e]\.png'):
        dataset[0]


def config(root):
    load = dict(type='LoadImageFromFile')

    def loader(split):
        return dict(dataset=dict(
            type='CocoDataset', data_root=root, ann_file=f'annotations/{split}.json', data_prefix=dict(img=f'{split}/'),
            pipeline=[load, dict(type='Other', transforms=[[load]])]))
    evaluator = dict(type='CocoMetric', ann_file=f'{root}annotations/val.json')
    return Config(dict(train_dataloader=loader('train'), val_dataloader=loader('val'), test_dataloader=loader('val'),
                       val_evaluator=evaluator, test_evaluator=evaluator))


def test_absent_data_are_named_with_the_way_out():
    with pytest.raises(InputError) as error:
        data.require_data(config('data/nowhere/'), ('train_dataloader',))
    assert str(error.value) == (
        'expected the dataset under data/nowhere/, did not find data/nowhere/annotations/train.json, '
        'data/nowhere/train; put it there as data/README.md describes, name another folder with --data DIR, or run '
        'with --bundled, which needs no dataset')


def test_data_root_moves_everything(tmp_path):
    cfg = config('data/nowhere/')
    data.set_data_root(cfg, str(tmp_path))
    assert cfg.test_evaluator.ann_file == str(tmp_path / 'annotations/val.json')
    for name in ('train', 'val'):
        (tmp_path / name).mkdir()
        (tmp_path / 'annotations').mkdir(exist_ok=True)
        (tmp_path / 'annotations' / f'{name}.json').write_text('{}')
    data.require_data(cfg, data.LOADERS)
    cfg.test_evaluator.ann_file = 'nowhere/val.json'
    with pytest.raises(InputError, match='did not find nowhere/val.json; put it there'):
        data.require_data(cfg, ('test_dataloader',))


def test_loader_is_replaced_at_any_depth():
    cfg = config('x/')
    data.replace_image_loaders(cfg)
    text = str(cfg)
    assert 'LoadImageFromFile' not in text and text.count("'skip'") == 2 and text.count("'keep'") == 4


@pytest.mark.parametrize('kind', ['mmcv.LoadImageFromFile', LoadImageFromFile])
def test_loader_of_a_scope_and_loader_class_are_exchanged(kind):
    cfg = Config(dict(val_dataloader=dict(dataset=dict(pipeline=[dict(type=kind), dict(type=PackDetInputs)]))))
    data.replace_image_loaders(cfg)
    data.report_broken_images(cfg)
    load, pack = cfg.val_dataloader.dataset.pipeline
    assert load.type == 'LoadImageOrSkip' and load.on_broken == 'keep' and 'fault' in pack.meta_keys
