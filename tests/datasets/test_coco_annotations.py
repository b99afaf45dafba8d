"""COCO annotation files: what is repaired, with counts, and what is refused, with file, entry and field."""

import codecs
import copy
import json
import math

import pytest
from pycocotools import mask as coco_mask

from pit_downstream.datasets.coco_annotations import read_annotations

SQUARE = [10, 10, 20, 10, 20, 20, 10, 20]
TRIANGLE = [0, 0, 4, 0, 0, 3]


def content():
    return {
        'images': [{'id': 1, 'file_name': 'a.png', 'width': 40, 'height': 30},
                   {'id': 2, 'file_name': 'b.png', 'width': 40, 'height': 30}],
        'categories': [{'id': 7, 'name': 'cat'}, {'id': 3, 'name': 'dog'}],
        'annotations': [{'id': 5 + index, 'image_id': 1 + index % 2, 'category_id': 7 if index else 3, 'iscrowd': 0,
                         'bbox': [10, 10, 10, 10], 'area': 100, 'segmentation': [list(SQUARE)]} for index in range(4)]}


def read(data, **options):
    return read_annotations(data if isinstance(data, bytes) else json.dumps(data).encode(), 'data/a.json', **options)


def changed(kind, index, **fields):
    """The content with other fields in one entry; ... removes a field."""
    data = content()
    data[kind][index] = {key: value for key, value in (data[kind][index] | fields).items() if value is not ...}
    return data


@pytest.mark.parametrize('masks', [False, True])
def test_a_correct_file_is_left_as_it_is(masks):
    file = read(content(), masks=masks)
    assert file.content == content() and not file.repairs and not file.notes


REPAIRS = [  # fields of the third annotation, what they become
    ({'iscrowd': ...}, {'iscrowd': 0}), ({'iscrowd': None}, {'iscrowd': 0}), ({'iscrowd': '1'}, {'iscrowd': 1}),
    ({'iscrowd': 1.0}, {'iscrowd': 1}),
    ({'area': ...}, {'area': 100}), ({'area': None}, {'area': 100}), ({'area': 'big'}, {'area': 100}),
    ({'area': math.nan}, {'area': 100}), ({'area': -100}, {'area': 100}),
    ({'area': ..., 'segmentation': [TRIANGLE]}, {'area': 6}),
    ({'area': ..., 'segmentation': [TRIANGLE, SQUARE[::-1]]}, {'area': 106}),
    ({'area': ..., 'segmentation': ...}, {'area': 100}), ({'area': ..., 'segmentation': [[1, 2]]}, {'area': 100}),
    ({'area': ..., 'bbox': [0, 0, 2.5, 3], 'segmentation': []}, {'area': 7.5}),
    ({'image_id': '1'}, {'image_id': 1}), ({'image_id': 1.0}, {'image_id': 1}), ({'category_id': '7'},
                                                                                 {'category_id': 7})]


@pytest.mark.parametrize('fields, becomes', REPAIRS)
def test_fields_with_one_meaning_are_repaired_and_counted(fields, becomes):
    file = read(changed('annotations', 2, **fields))
    assert {key: file.content['annotations'][2][key] for key in becomes} == becomes
    assert all(type(file.content['annotations'][2][key]) is not str for key in becomes)
    assert list(file.repairs.values()) == [1]
    others = [entry for index, entry in enumerate(file.content['annotations']) if index != 2]
    assert others == [entry for index, entry in enumerate(content()['annotations']) if index != 2]


@pytest.mark.parametrize('compressed', [False, True])
def test_area_of_run_lengths_is_that_of_pycocotools(compressed):
    lengths = {'size': [30, 40], 'counts': [100, 20, 10, 7, 1063]}
    packed = coco_mask.frPyObjects(lengths, 30, 40)
    stored = {'size': [30, 40], 'counts': packed['counts'].decode()} if compressed else lengths
    file = read(changed('annotations', 1, area=..., segmentation=stored), masks=True)
    assert file.content['annotations'][1]['area'] == coco_mask.area(packed) == 27


@pytest.mark.parametrize('ids', [[0, 1, 2, 3], [1, 2, 2, 3], ['a', 'b', 'c', 'd'], [1, 2, 3, None], [1, 2, 3, ...],
                                 [1, 2, 3, True], [1.5, 2, 3, 4], [-1, 1, 2, 3], [1, 2, 3, 2 ** 60]])
def test_annotation_ids_are_renumbered_from_one(ids):
    data = content()
    for entry, id in zip(data['annotations'], ids, strict=True):
        entry['id'] = id
        if id is ...:
            del entry['id']
    file = read(data)
    assert [entry.pop('id') for entry in file.content['annotations']] == [1, 2, 3, 4]
    assert list(file.repairs.values()) == [4]
    assert file.content['annotations'] == [{key: value for key, value in entry.items() if key != 'id'}
                                           for entry in content()['annotations']]


def test_text_ids_of_images_stay_where_they_are_no_numbers():
    """Image ids seed corruptions and name records: '1' is 1 in both, '001' and 'a' are themselves."""
    for ids, become in ((('1', '2'), [1, 2]), (('001', '2'), ['001', '2']), (('a', '2'), ['a', '2']), ((1.0, 2),
                                                                                                     [1, 2])):
        data = content()
        for index, entry in enumerate(data['images']):
            entry['id'] = ids[index]
        for index, entry in enumerate(data['annotations']):
            entry['image_id'] = ids[index % 2]
        file = read(data)
        assert [entry['id'] for entry in file.content['images']] == become
        assert [entry['image_id'] for entry in file.content['annotations']] == become * 2


def test_repeated_images_and_categories_that_agree_are_removed():
    data = content()
    data['images'].append(dict(data['images'][0]))
    data['categories'].append(dict(data['categories'][1]))
    file = read(data)
    assert file.content == content() and sum(file.repairs.values()) == 2


def test_polygons_without_area_are_removed_where_masks_are_used():
    data = changed('annotations', 0, segmentation=[[1, 1, 5, 5], SQUARE, [], [2, 2]])
    assert read(data).content == data  # boxes alone do not need them
    file = read(data, masks=True)
    assert file.content == content() and list(file.repairs.values()) == [3]


@pytest.mark.parametrize('codec, mark', [('utf-8', codecs.BOM_UTF8), ('utf-16-le', codecs.BOM_UTF16_LE)])
def test_a_byte_order_mark_is_tolerated(codec, mark):
    file = read(mark + json.dumps(changed('categories', 0, name='Käse'), ensure_ascii=False).encode(codec))
    assert file.content['categories'][0]['name'] == 'Käse' and list(file.repairs.values()) == [1]


@pytest.mark.parametrize('data, words', [
    (b'', 'empty'), (b'\n', 'empty'), (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'LFS'),
    (json.dumps(content()).encode()[:200], 'truncated'), (b'<html>', 'JSON'), (b'[' * 100_000, 'JSON'),
    ('{"info": "K\xe4se"}'.encode('latin-1'), 'UTF-8'), (b'[]', 'images'), (b'{}', 'images'), (b'null', 'images'),
    (b'{"images": [1]}', r'images\[0\]'), (b'{"images": {}}', 'images'), (b'{"images": []}', 'images')])
def test_what_is_no_annotation_file_is_refused(data, words):
    with pytest.raises(ValueError, match=words) as error:
        read(data)
    assert 'data/a.json' in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize('kind', ['images', 'annotations', 'categories'])
def test_a_missing_or_empty_list_is_refused(kind):
    for value in (None, [], 3):
        with pytest.raises(ValueError, match=f'data/a.json|{kind}'):
            read(content() | {kind: value})
    images_alone = {key: content()[key] for key in ('images', 'categories')}
    assert read(images_alone, labeled=False).content == images_alone  # as COCO's image_info_test-dev2017.json


REFUSED = [
    ('images', 1, field, value) for field in ('file_name', 'width', 'height') for value in (..., None, 3.5, [])] + [
    ('images', 1, 'width', '40'), ('images', 1, 'width', 0), ('images', 1, 'height', -1), ('images', 1, 'height', True),
    ('images', 1, 'file_name', ''), ('images', 1, 'id', None), ('images', 1, 'id', ...), ('images', 1, 'id', 'b'),
    ('images', 1, 'id', 1), ('images', 1, 'id', 1.5), ('images', 1, 'id', [1]),
    ('categories', 1, 'id', None), ('categories', 1, 'id', 'dog'), ('categories', 1, 'id', 7),
    ('categories', 1, 'id', 2.5), ('categories', 1, 'name', ...), ('categories', 1, 'name', None),
    ('categories', 1, 'name', 4), ('categories', 1, 'name', 'cat'), ('categories', 1, 'name', ' ')] + [
    ('annotations', 2, 'bbox', value) for value in (
        ..., None, '10 10 10 10', [], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, '4'], [1, 2, 3, None], [1, 2, math.nan, 4],
        [math.inf, 2, 3, 4], [1, 2, -3, 4], [1, 2, 3, -4], [1, 2, 3, True], [1, 2, 3, 10 ** 400])] + [
    ('annotations', 2, 'image_id', value) for value in (..., None, 3, '3', 'x', [1], True)] + [
    ('annotations', 2, 'category_id', value) for value in (..., None, 4, 0, 'cat', 7.5, {})] + [
    ('annotations', 2, 'iscrowd', value) for value in (2, -1, 'yes', [0], 0.5)]


@pytest.mark.parametrize('kind, index, field, value', REFUSED)
def test_fields_without_one_meaning_are_refused(kind, index, field, value):
    """The error has file, position and, where there is one, id, and field."""
    data = changed(kind, index, **{field: value})
    with pytest.raises(ValueError) as error:
        read(data)
    text = str(error.value)
    assert 'data/a.json' in text and f'{kind}[{index}]' in text and field in text and len(text) < 400
    if kind == 'annotations':
        assert '(id 7)' in text


@pytest.mark.parametrize('value', [
    ..., None, [], [[]], [[1, 1, 5, 5]], [[1, 2, 3, 4, 5, 6, 7]], [[1, 2, 3, 4, 5, math.nan]], [[1, 2, 3, 4, 5, '6']],
    SQUARE, 'x', {'size': [40, 30], 'counts': [1200]}, {'size': [30, 40], 'counts': [1100]}, {'size': [30, 40]}])
def test_segmentations_without_a_mask_are_refused_where_masks_are_used(value):
    data = changed('annotations', 2, segmentation=value)
    assert not read(data).repairs
    with pytest.raises(ValueError, match=r'data/a.json.*segmentation.*annotations\[2\] \(id 7\)'):
        read(data, masks=True)


@pytest.mark.parametrize('box', [[10, 10, 0, 10], [10, 10, 10, .5], [50, 10, 10, 10], [-20, 10, 20, 10]])
def test_objects_that_training_leaves_out_are_kept_and_counted(box):
    """As mmdet's CocoDataset.parse_data_info decides."""
    file = read(changed('annotations', 1, bbox=box))
    assert not file.repairs and list(file.notes.values()) == [1] and len(file.content['annotations']) == 4


def test_long_values_are_cut_in_errors():
    data = changed('annotations', 2, bbox=[list(range(100))] * 60)
    before = copy.deepcopy(data)
    with pytest.raises(ValueError) as error:
        read(data)
    assert len(str(error.value)) < 300 and data == before
