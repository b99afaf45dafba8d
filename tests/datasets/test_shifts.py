"""Shifted datasets: class indices, published counts, wrong folders, and selection."""

import logging
from importlib.resources import files

import pytest

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Sample
from pit_downstream.utils.registry import DATASETS
from pit_downstream.datasets.backgrounds import IN9
from pit_downstream.datasets.base import Preprocess
from pit_downstream.datasets.labelsets import get_subset_indices, load_real_labels
from pit_downstream.datasets.imagenet_shifts import read_objectnet_classes
from pit_downstream.datasets.shifts import load_shifts, select_shifts
from tests.datasets import shift_folders
from tests.datasets.shift_folders import BOTH, ONLY_A, ONLY_R, WNIDS, class_folders, write_image

VIEW = Preprocess(32, 36)


def load(name, root):
    return DATASETS[name](root, view=VIEW)


def get_clean_labels(shift, metric, target, id='ILSVRC2012_val_00000001.JPEG'):
    return shift.clean_labels[metric](Sample(id, None, target))


@pytest.mark.parametrize('name', ['imagenet_a', 'imagenet_r'])
def test_subset_indices_are_the_published_ones(name):
    """The oracle is timm's file of indices. Ours come from the WordNet ids."""
    published = (files('timm.data') / '_info' / f'{name}_indices.txt').read_text().split()
    assert list(get_subset_indices(name).values()) == list(map(int, published)) and len(published) == 200


def test_published_counts():
    """FACTS: 370 of 1000 classes belong to IN-9's; 46,837 images have labels in ReaL, 7,443 of them several."""
    assert {name: len(indices) for name, indices in IN9.items()} == {
        'dog': 116, 'bird': 52, 'vehicle': 42, 'reptile': 36, 'carnivore': 35, 'insect': 27, 'instrument': 26,
        'primate': 20, 'fish': 16}
    assert len(set().union(*IN9.values())) == 370
    labels = load_real_labels()
    assert (len(labels), sum(map(bool, labels)), sum(len(these) > 1 for these in labels)) == (50000, 46837, 7443)


def test_in9_classes_match_class_descriptions():
    """A spot check against the names of classes."""
    from timm.data import ImageNetInfo
    info = ImageNetInfo()
    words = {name: [info.index_to_description(index) for index in indices] for name, indices in IN9.items()}
    for name, word in (('dog', 'Pembroke'), ('bird', 'ostrich'), ('vehicle', 'ambulance'), ('reptile', 'box turtle'),
                       ('carnivore', 'tiger'), ('insect', 'monarch'), ('instrument', 'cello'), ('primate', 'gorilla'),
                       ('fish', 'tench')):
        assert any(word in one for one in words[name]) and not any(
            word in one.split(', ') for other in IN9 if other != name for one in words[other])


def test_imagenet_a_classes_and_clean_labels(tmp_path):
    shift = load('imagenet_a', class_folders(tmp_path, [BOTH, ONLY_A]))
    assert shift.classes == tuple(get_subset_indices('imagenet_a').values())
    assert shift.samples.targets == [(6,), (6,), (15,), (15,)]
    assert str(shift.samples.spec) == "imagenet_a(classes=200, images=4, interpolation='bilinear', resize=36, size=32)"
    assert [get_clean_labels(shift, 'imagenet_a_clean_error', target) for target in (6, 15, 1)] == [(6,), (15,), ()]


@pytest.mark.parametrize('names, targets', [
    (['0', '2', '10', '999'], [0, 10, 2, 999]), (['0000', '0002', '0010'], [0, 2, 10]),
    ([WNIDS[0], WNIDS[2], WNIDS[999]], [0, 2, 999])])
@pytest.mark.parametrize('variant', ['matched_frequency', 'threshold0.7', 'top_images'])
def test_imagenet_v2_folder_numbers_are_class_indices(tmp_path, names, targets, variant):
    shift = load(f'imagenet_v2_{variant}', class_folders(tmp_path, names, 1))
    assert shift.samples.targets == [(target,) for target in targets]
    assert shift.classes is None and not shift.clean_labels


def test_real_labels_follow_the_image_number():
    shift = DATASETS['imagenet_real']()
    assert shift.samples is None
    # real.json begins [[], [970, 795], [230, 231], [809] ...
    for number, labels in ((1, ()), (2, (970, 795)), (3, (230, 231)), (4, (809,))):
        id = f'n03787032/ILSVRC2012_val_{number:08d}.JPEG'
        assert get_clean_labels(shift, 'imagenet_real_error', 7, id) == labels
        assert get_clean_labels(shift, 'imagenet_real_clean_error', 7, id) == ((7,) if labels else ())
    with pytest.raises(ValueError, match='ReaL has labels of images named .*, got n01440764/tench.JPEG'):
        get_clean_labels(shift, 'imagenet_real_error', 0, 'n01440764/tench.JPEG')


def test_objectnet_objects_map_to_several_classes(tmp_path):
    shift = load('objectnet', shift_folders.objectnet(tmp_path))
    assert shift.samples.ids == ['banana/0.png', 'banana/1.png', 'pen/0.png', 'pen/1.png']  # no coaster in ImageNet
    assert shift.samples.targets == [(954,)] * 2 + [(418, 749)] * 2 and shift.classes is None
    assert 'border=2' in shift.samples.name
    assert [get_clean_labels(shift, 'objectnet_clean_error', target) for target in (749, 954, 0)] == [
        (418, 749), (954,), ()]


def test_invalid_objectnet_mappings_raise(tmp_path):
    mappings = shift_folders.objectnet(tmp_path) / 'mappings'
    whole = (mappings / 'objectnet_to_imagenet_1k.json').read_text()
    (mappings / 'objectnet_to_imagenet_1k.json').write_text(whole.replace('quill', 'feather'))
    with pytest.raises(ValueError, match="do not match each other: 'feather, feather pen'"):
        read_objectnet_classes(mappings)
    (mappings / 'objectnet_to_imagenet_1k.json').write_text(whole[:20])
    with pytest.raises(ValueError, match='objectnet_to_imagenet_1k.json is not valid JSON'):
        read_objectnet_classes(mappings)
    (mappings / 'objectnet_to_imagenet_1k.json').unlink()
    with pytest.raises(InputError, match="No file .*objectnet_to_imagenet_1k.json. Unpack"):
        read_objectnet_classes(mappings)


def test_in9_classes_follow_the_folder_order(tmp_path):
    shift = load('in9_mixed_rand', shift_folders.in9(tmp_path, 'mixed_rand', 1))
    assert shift.samples.targets == list(IN9.values()) and shift.samples.ids[4] == '04_carnivore/0.jpg'
    (tmp_path / 'mixed_rand' / 'val' / '00_dog').rename(tmp_path / 'mixed_rand' / 'val' / '09_dog')
    with pytest.raises(ValueError, match='in the order dog, bird, .*, got 01_bird instead of dog'):
        load('in9_mixed_rand', tmp_path)


@pytest.mark.parametrize('name, names, words', [
    ('imagenet_a', list(get_subset_indices('imagenet_r')),
     'which looks like ImageNet-R: 200 folders named by WordNet id'),
    ('imagenet_r', list(get_subset_indices('imagenet_a')), 'which looks like ImageNet-A: 200 folders'),
    ('imagenet_a', [ONLY_R], 'which looks like a part of ImageNet-R: 1 folder named by WordNet id'),
    ('imagenet_a', WNIDS[:12], 'which looks like classes of ImageNet-1k: 12 folders'),
    ('imagenet_r', ['0', '1'], 'which looks like ImageNet-V2: 2 folders with numbers as names'),
    ('imagenet_sketch', list(get_subset_indices('imagenet_a')), 'which looks like ImageNet-A: 200 folders'),
    ('imagenet_sketch', ['0', '1'], 'which looks like ImageNet-V2'),
    ('imagenet_sketch', [f'inner/{WNIDS[0]}'], 'a folder around inner, which looks like classes of ImageNet-1k'),
    ('imagenet_a', ['images/pen', 'mappings'], 'which looks like ObjectNet: folders images and mappings'),
    ('imagenet_v2_top_images', ['mixed_same/val', 'mixed_rand/val'], 'which looks like the Backgrounds Challenge'),
    ('objectnet', ['pen', 'banana'], r'which looks like 2 folders \(banana, pen\)'),
    ('in9_mixed_same', ['mixed_rand/val/00_dog', 'mixed_same/val/00_dog'], r'Expected nine class folders, .* 00_dog'),
])
def test_error_describes_a_wrong_folder(tmp_path, name, names, words):
    for folder in names:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ValueError, match=words):
        load(name, tmp_path)


@pytest.mark.parametrize('name', ['imagenet_sketch', 'imagenet_v2_top_images'])
def test_validation_images_are_no_shift(tmp_path, name):
    with pytest.raises(ValueError, match="which looks like ImageNet's validation images: 6 folders"):
        load(name, shift_folders.validation(tmp_path))


def test_image_count_is_compared_with_the_published_one(tmp_path, caplog, monkeypatch):
    root = class_folders(tmp_path, [ONLY_A])
    with caplog.at_level(logging.WARNING):
        load_shifts({'imagenet_a': root}, view=VIEW)
    assert caplog.messages == [f'ImageNet-A has 2 of its 7500 images in {root}']
    monkeypatch.setitem(DATASETS._entries, 'imagenet_a', DATASETS.get_entry('imagenet_a').__class__(
        DATASETS['imagenet_a'], {'title': 'ImageNet-A', 'images': 1}))
    with pytest.raises(ValueError, match='ImageNet-A has 1 images, got 2 in '):
        load_shifts({'imagenet_a': root}, view=VIEW)


def test_select_shifts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert select_shifts([], 'val') == {}
    shift_folders.validation(tmp_path / 'val')
    class_folders(tmp_path / 'data' / 'imagenet-r', [ONLY_R])
    shift_folders.in9(tmp_path / 'data' / 'bg_challenge', 'mixed_same', 1)
    assert select_shifts([], 'val') == {'imagenet_r': 'data/imagenet-r', 'imagenet_real': None,
                                        'in9_mixed_same': 'data/bg_challenge'}
    assert select_shifts(['in9', 'objectnet=elsewhere', 'imagenet_a'], 'val') == {
        'in9_mixed_same': 'data/bg_challenge', 'objectnet': 'elsewhere', 'imagenet_a': 'data/imagenet-a'}
    write_image(tmp_path / 'flat' / 'ILSVRC2012_val_00000007.JPEG')
    assert 'imagenet_real' in select_shifts([], 'flat') and 'imagenet_real' not in select_shifts([], 'data')
    with pytest.raises(InputError, match="no dataset named 'imagenet_p'; did you mean imagenet_"):
        select_shifts(['imagenet_p=x'], 'val')
    with pytest.raises(ValueError, match='imagenet_real has no folder, .* got imagenet_real=real.json'):
        select_shifts(['imagenet_real=real.json'], 'val')
    write_image(tmp_path / 'other' / 'cat' / '0.png')
    with pytest.raises(ValueError, match='Expected the Backgrounds Challenge with folders original, .* around cat'):
        select_shifts(['in9=other'], 'val')


def test_datasets_and_benchmarks_agree_on_the_prefix_of_custom_shifts():
    """The two packages do not import each other."""
    from pit_downstream.benchmarks import shifts as benchmark
    from pit_downstream.datasets import shifts
    assert shifts.CUSTOM_PREFIX == benchmark.CUSTOM_PREFIX


def test_limit(tmp_path):
    root = class_folders(tmp_path, [BOTH, ONLY_A])
    subset = load_shifts({'imagenet_a': root}, view=VIEW, limit=2)['imagenet_a'].samples
    assert subset.targets == [(6,), (15,)] and 'limit=2' in subset.name
    assert len(load_shifts({'imagenet_a': root}, view=VIEW, limit=50)['imagenet_a'].samples) == 4
