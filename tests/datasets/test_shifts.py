"""Shifted datasets: class indices, published counts, wrong folders, and where they are looked for."""

import logging
from importlib.resources import files

import pytest

from pit_downstream.utils.protocols import Sample
from pit_downstream.utils.registry import DATASETS
from pit_downstream.datasets.backgrounds import IN9
from pit_downstream.datasets.base import View
from pit_downstream.datasets.labelsets import real_labels, subset_indices
from pit_downstream.datasets.objectnet import shared_classes
from pit_downstream.datasets.shifts import chosen_places, open_shifts
from tests.datasets import shift_folders
from tests.datasets.shift_folders import BOTH, ONLY_A, ONLY_R, WNIDS, class_folders, picture

VIEW = View(32, 36)


def opened(name, root):
    return DATASETS[name](root, view=VIEW)


def answers(shift, metric, target, id='ILSVRC2012_val_00000001.JPEG'):
    return shift.on_clean[metric](Sample(id, None, target))


@pytest.mark.parametrize('name', ['imagenet_a', 'imagenet_r'])
def test_the_two_hundred_are_the_published_indices(name):
    """timm has the indices in a file of their own; ours come from the WordNet ids."""
    published = (files('timm.data') / '_info' / f'{name}_indices.txt').read_text().split()
    assert list(subset_indices(name).values()) == list(map(int, published)) and len(published) == 200


def test_published_counts():
    """FACTS: 370 of 1000 classes belong to IN-9's; 46,837 images have labels in ReaL, 7,443 of them several."""
    assert {name: len(indices) for name, indices in IN9.items()} == {
        'dog': 116, 'bird': 52, 'vehicle': 42, 'reptile': 36, 'carnivore': 35, 'insect': 27, 'instrument': 26,
        'primate': 20, 'fish': 16}
    assert len(set().union(*IN9.values())) == 370
    labels = real_labels()
    assert (len(labels), sum(map(bool, labels)), sum(len(these) > 1 for these in labels)) == (50000, 46837, 7443)


def test_the_nine_classes_are_what_their_words_say():
    """A spot check against the names of classes."""
    from timm.data import ImageNetInfo
    info = ImageNetInfo()
    words = {name: [info.index_to_description(index) for index in indices] for name, indices in IN9.items()}
    for name, word in (('dog', 'Pembroke'), ('bird', 'ostrich'), ('vehicle', 'ambulance'), ('reptile', 'box turtle'),
                       ('carnivore', 'tiger'), ('insect', 'monarch'), ('instrument', 'cello'), ('primate', 'gorilla'),
                       ('fish', 'tench')):
        assert any(word in one for one in words[name]) and not any(
            word in one.split(', ') for other in IN9 if other != name for one in words[other])


def test_two_hundred_classes_and_their_clean_pictures(tmp_path):
    shift = opened('imagenet_a', class_folders(tmp_path, [BOTH, ONLY_A]))
    assert shift.classes == tuple(subset_indices('imagenet_a').values())
    assert shift.samples.targets == [(6,), (6,), (15,), (15,)]
    assert str(shift.samples.spec) == "imagenet_a(classes=200, images=4, interpolation='bilinear', resize=36, size=32)"
    assert [answers(shift, 'imagenet_a_clean_error', target) for target in (6, 15, 1)] == [(6,), (15,), ()]


@pytest.mark.parametrize('names, targets', [
    (['0', '2', '10', '999'], [0, 10, 2, 999]), (['0000', '0002', '0010'], [0, 2, 10]),
    ([WNIDS[0], WNIDS[2], WNIDS[999]], [0, 2, 999])])
@pytest.mark.parametrize('variant', ['matched_frequency', 'threshold0.7', 'top_images'])
def test_numbers_of_version_two_are_class_indices(tmp_path, names, targets, variant):
    shift = opened(f'imagenet_v2_{variant}', class_folders(tmp_path, names, 1))
    assert shift.samples.targets == [(target,) for target in targets]
    assert shift.classes is None and not shift.on_clean


def test_labels_of_real_go_by_number():
    shift = DATASETS['imagenet_real']()
    assert shift.samples is None
    # real.json begins [[], [970, 795], [230, 231], [809] ...
    for number, labels in ((1, ()), (2, (970, 795)), (3, (230, 231)), (4, (809,))):
        id = f'n03787032/ILSVRC2012_val_{number:08d}.JPEG'
        assert answers(shift, 'imagenet_real_error', 7, id) == labels
        assert answers(shift, 'imagenet_real_clean_error', 7, id) == ((7,) if labels else ())
    with pytest.raises(ValueError, match='by which ReaL has its labels, got n01440764/tench.JPEG; give ImageNet'):
        answers(shift, 'imagenet_real_error', 0, 'n01440764/tench.JPEG')


def test_objects_map_to_several_classes(tmp_path):
    shift = opened('objectnet', shift_folders.objectnet(tmp_path))
    assert shift.samples.ids == ['banana/0.png', 'banana/1.png', 'pen/0.png', 'pen/1.png']  # no coaster in ImageNet
    assert shift.samples.targets == [(954,)] * 2 + [(418, 749)] * 2 and shift.classes is None
    assert 'border=2' in shift.samples.name
    assert [answers(shift, 'objectnet_clean_error', target) for target in (749, 954, 0)] == [(418, 749), (954,), ()]


def test_the_files_of_objectnet_are_checked(tmp_path):
    mappings = shift_folders.objectnet(tmp_path) / 'mappings'
    whole = (mappings / 'objectnet_to_imagenet_1k.json').read_text()
    (mappings / 'objectnet_to_imagenet_1k.json').write_text(whole.replace('quill', 'feather'))
    with pytest.raises(ValueError, match="a stranger in one of them .'feather, feather pen'"):
        shared_classes(mappings)
    (mappings / 'objectnet_to_imagenet_1k.json').write_text(whole[:20])
    with pytest.raises(ValueError, match='expected JSON in .*objectnet_to_imagenet_1k.json'):
        shared_classes(mappings)
    (mappings / 'objectnet_to_imagenet_1k.json').unlink()
    with pytest.raises(FileNotFoundError, match="no such file; it is in ObjectNet's archive"):
        shared_classes(mappings)


def test_nine_coarse_classes_in_the_order_of_their_folders(tmp_path):
    shift = opened('in9_mixed_rand', shift_folders.in9(tmp_path, 'mixed_rand', 1))
    assert shift.samples.targets == list(IN9.values()) and shift.samples.ids[4] == '04_carnivore/0.jpg'
    (tmp_path / 'mixed_rand' / 'val' / '00_dog').rename(tmp_path / 'mixed_rand' / 'val' / '09_dog')
    with pytest.raises(ValueError, match='in the order dog, bird, .*, got 01_bird in the place of dog'):
        opened('in9_mixed_rand', tmp_path)


@pytest.mark.parametrize('name, names, words', [
    ('imagenet_a', list(subset_indices('imagenet_r')), 'this looks like ImageNet-R: 200 folders named by WordNet id'),
    ('imagenet_r', list(subset_indices('imagenet_a')), 'this looks like ImageNet-A: 200 folders'),
    ('imagenet_a', [ONLY_R], 'this looks like a part of ImageNet-R: 1 folder named by WordNet id'),
    ('imagenet_a', WNIDS[:12], 'this looks like classes of ImageNet-1k: 12 folders'),
    ('imagenet_r', ['0', '1'], 'this looks like ImageNet-V2: 2 folders with numbers as names'),
    ('imagenet_sketch', list(subset_indices('imagenet_a')), 'this looks like ImageNet-A: 200 folders'),
    ('imagenet_sketch', ['0', '1'], 'this looks like ImageNet-V2'),
    ('imagenet_sketch', [f'inner/{WNIDS[0]}'], 'a folder around inner, which looks like classes of ImageNet-1k'),
    ('imagenet_a', ['images/pen', 'mappings'], 'this looks like ObjectNet: folders images and mappings'),
    ('imagenet_v2_top_images', ['mixed_same/val', 'mixed_rand/val'], 'this looks like the Backgrounds Challenge'),
    ('objectnet', ['pen', 'banana'], r'this looks like 2 folders \(banana, pen\)'),
    ('in9_mixed_same', ['mixed_rand/val/00_dog', 'mixed_same/val/00_dog'], r'expected nine class folders, .* 00_dog'),
])
def test_wrong_folders_are_named(tmp_path, name, names, words):
    for folder in names:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ValueError, match=words):
        opened(name, tmp_path)


@pytest.mark.parametrize('name', ['imagenet_sketch', 'imagenet_v2_top_images'])
def test_the_validation_pictures_are_no_shift(tmp_path, name):
    with pytest.raises(ValueError, match="this looks like ImageNet's validation images: 6 folders"):
        opened(name, shift_folders.validation(tmp_path))


def test_a_number_beside_the_published_one(tmp_path, caplog, monkeypatch):
    root = class_folders(tmp_path, [ONLY_A])
    with caplog.at_level(logging.WARNING):
        open_shifts({'imagenet_a': root}, view=VIEW)
    assert caplog.messages == [f'ImageNet-A has 2 of its 7500 images in {root}']
    monkeypatch.setitem(DATASETS._entries, 'imagenet_a', DATASETS.entry('imagenet_a').__class__(
        DATASETS['imagenet_a'], {'title': 'ImageNet-A', 'images': 1}))
    with pytest.raises(ValueError, match='expected the 1 images of ImageNet-A in .*, got 2; give its own folder'):
        open_shifts({'imagenet_a': root}, view=VIEW)


def test_what_a_command_line_chooses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert chosen_places([], 'val') == {}
    shift_folders.validation(tmp_path / 'val')
    class_folders(tmp_path / 'data' / 'imagenet-r', [ONLY_R])
    shift_folders.in9(tmp_path / 'data' / 'bg_challenge', 'mixed_same', 1)
    assert chosen_places([], 'val') == {'imagenet_r': 'data/imagenet-r', 'imagenet_real': None,
                                        'in9_mixed_same': 'data/bg_challenge'}
    assert chosen_places(['in9', 'objectnet=there', 'imagenet_a'], 'val') == {
        'in9_mixed_same': 'data/bg_challenge', 'objectnet': 'there', 'imagenet_a': 'data/imagenet-a'}
    picture(tmp_path / 'flat' / 'ILSVRC2012_val_00000007.JPEG')
    assert 'imagenet_real' in chosen_places([], 'flat') and 'imagenet_real' not in chosen_places([], 'data')
    with pytest.raises(LookupError, match="no dataset named 'imagenet_p'; did you mean imagenet_"):
        chosen_places(['imagenet_p=x'], 'val')
    with pytest.raises(ValueError, match='expected imagenet_real without a place, got imagenet_real=real.json'):
        chosen_places(['imagenet_real=real.json'], 'val')
    picture(tmp_path / 'other' / 'cat' / '0.png')
    with pytest.raises(ValueError, match='expected the Backgrounds Challenge with folders original, .* around cat'):
        chosen_places(['in9=other'], 'val')


def test_the_prefix_of_ones_own_is_that_of_the_tables():
    """Floor 1 has no word in common."""
    from pit_downstream.benchmarks import shifts
    from pit_downstream.datasets import own_shift
    assert own_shift.PREFIX == shifts.OWN


def test_a_limit_is_at_most_all_of_them(tmp_path):
    root = class_folders(tmp_path, [BOTH, ONLY_A])
    few = open_shifts({'imagenet_a': root}, view=VIEW, limit=2)['imagenet_a'].samples
    assert few.targets == [(6,), (15,)] and 'limit=2' in few.name
    assert len(open_shifts({'imagenet_a': root}, view=VIEW, limit=50)['imagenet_a'].samples) == 4
