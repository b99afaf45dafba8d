"""Folders of images, made here in every layout, against Pillow, torchvision and timm reading the same files."""

import errno
import hashlib
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import Spec
from pit_downstream.datasets import labelsets
from pit_downstream.datasets.base import ImageFolderSamples, Preprocess, UnreadableImage
from pit_downstream.datasets.cache import CachedSamples
from pit_downstream.datasets.imagenet import (
    load_class_folders,
    load_corruption_folders,
    load_flat_folder,
)
from pit_downstream.datasets.labelsets import Classes

WNIDS = ('n01440764', 'n01443537', 'n02123045', 'n15075141')  # classes 0, 1, 281 (tabby) and 999
SMALL = Preprocess(size=32, resize=40)


def picture(path: Path, seed=0, size=(50, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*reversed(size), 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=95)


@pytest.fixture
def folder(tmp_path):
    for index, wnid in enumerate(WNIDS):
        for number in range(3):
            picture(tmp_path / 'val' / wnid / f'{number}.JPEG', seed=10 * index + number)
    (tmp_path / 'val' / WNIDS[0] / 'notes.txt').write_text('no image')
    (tmp_path / 'val' / '.hidden').mkdir()
    return tmp_path / 'val'


def test_wordnet_folders_have_their_place_in_the_thousand(folder):
    samples = load_class_folders(folder, view=SMALL)
    root = f'{folder.parent.name}/val'
    assert str(samples.spec) == f"folder(images=12, interpolation='bilinear', resize=40, root='{root}', size=32)"
    assert samples.targets == [0] * 3 + [1] * 3 + [281] * 3 + [999] * 3
    assert samples.ids[3] == 'n01443537/0.JPEG'
    assert len(labelsets.get_wnid_indices()) == 1000
    assert list(labelsets.get_wnid_indices()) == sorted(labelsets.get_wnid_indices())


def test_pixels_are_those_of_torchvision_and_pillow(folder):
    from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize
    theirs = ImageFolder(folder, Compose([Resize(40), CenterCrop(32), PILToTensor()]), allow_empty=True)
    ours = load_class_folders(folder, view=SMALL)
    assert all(torch.equal(ours[i].image, theirs[i][0]) for i in range(12))
    assert ours[0].image.dtype == torch.uint8 and ours[0].image.is_contiguous()
    native = load_class_folders(folder, view=Preprocess(None, None))
    with Image.open(folder / 'n01440764' / '0.JPEG') as whole:
        assert torch.equal(native[0].image, torch.from_numpy(np.array(whole)).permute(2, 0, 1))
    assert native.spec.get('view') == 'native' and native.spec.get('size') is None


@pytest.mark.parametrize('config', [
    {'crop_pct': 0.9, 'interpolation': 'bicubic'}, {'crop_pct': 0.875, 'interpolation': 'bilinear'},
    {'crop_pct': 1.0, 'interpolation': 'bicubic', 'crop_mode': 'squash'}])
def test_pixels_are_those_of_timm(folder, config):
    transform = timm.data.create_transform(input_size=(3, 36, 36), normalize=False, **config)
    view = Preprocess(36, int(36 / config['crop_pct']), config['interpolation'], config.get('crop_mode', 'center'))
    samples = load_class_folders(folder, view=view)
    for index, id in enumerate(samples.ids):
        with Image.open(folder / id) as whole:
            assert torch.equal(samples[index].image, transform(whole.convert('RGB')))


@pytest.mark.parametrize('names, indices', [
    (['cat', 'dog', 'ape'], {'ape': 0, 'cat': 1, 'dog': 2}),
    (['0', '10', '2'], {'0': 0, '10': 10, '2': 2}),  # ImageNet-V2
    (['0007'], {'0007': 7}),
])
def test_other_names(names, indices):
    assert Classes().indices(names) == indices


def test_unknown_wordnet_folders_are_refused():
    with pytest.raises(ValueError, match='got 2 of them beside n99999999, tools, which are none of the 1000'):
        Classes().indices(['n01440764', 'n99999999', 'tools'])


def test_other_folders_are_named_by_the_end_of_their_path(tmp_path):
    picture(tmp_path / 'mine' / 'val' / 'cat' / '0.png')
    samples = load_class_folders(tmp_path / 'mine' / 'val', view=Preprocess(None, None))
    assert samples.name == f"folder(files={samples.files!r}, images=1, root='mine/val', view='native')"


def test_the_thousand_classes_are_imagenet(tmp_path):
    for wnid in labelsets.get_wnid_indices():
        (tmp_path / 'val' / wnid).mkdir(parents=True)
    picture(tmp_path / 'val' / 'n01440764' / 'x.JPEG')
    assert load_class_folders(tmp_path / 'val', view=SMALL).spec.name == 'imagenet'


def test_other_images_have_another_name(tmp_path):
    """The digest is SHA-256 of path, content and target, by hand; the place and the times do not matter."""
    for place in ('here/val', 'there/val'):
        for name in ('a', 'b'):
            picture(tmp_path / place / 'cat' / f'{name}.png')
    here, there = (load_class_folders(tmp_path / place / 'val', view=SMALL) for place in ('here', 'there'))
    os.utime(tmp_path / 'there' / 'val' / 'cat' / 'a.png', (1, 1))
    content = hashlib.sha256((tmp_path / 'here' / 'val' / 'cat' / 'a.png').read_bytes()).hexdigest()[:16]
    by_hand = hashlib.sha256(f'cat/a.png {content} 0\ncat/b.png {content} 0'.encode()).hexdigest()[:16]
    assert here.files == there.files == by_hand and f'files={by_hand!r}' in here.name
    assert here.take(1).name != here.name and len(here.take(1).files) == 16
    picture(tmp_path / 'there' / 'val' / 'cat' / 'a.png', size=(40, 40))
    assert load_class_folders(tmp_path / 'there' / 'val', view=SMALL).files != by_hand
    (tmp_path / 'here' / 'val' / 'cat' / 'a.png').rename(tmp_path / 'here' / 'val' / 'cat' / 'c.png')
    assert load_class_folders(tmp_path / 'here' / 'val', view=SMALL).files != by_hand


def test_other_labels_have_another_name(tmp_path):
    picture(tmp_path / 'a.png')
    names = set()
    for label in '12':
        (tmp_path / 'labels.txt').write_text(label)
        names.add(load_flat_folder(tmp_path, tmp_path / 'labels.txt', view=SMALL).name)
    assert len(names) == 2


@pytest.mark.parametrize('text', [
    'b.JPEG 1\na.JPEG 281\n', 'a,n02123045\nb,n01443537',
    'ImageId,PredictionString\nb,n01443537 1 2 3 4\na,n02123045 5 6',
    '281\n1\n', 'n02123045\n\nn01443537'])
def test_a_flat_folder_takes_its_classes_from_a_file(tmp_path, text):
    for name in 'ab':
        picture(tmp_path / 'val' / f'{name}.JPEG')
    (tmp_path / 'labels.txt').write_text(text)
    samples = load_flat_folder(tmp_path / 'val', tmp_path / 'labels.txt', view=SMALL)
    assert (samples.ids, samples.targets) == (['a.JPEG', 'b.JPEG'], [281, 1])


def test_a_name_may_hold_blanks(tmp_path):
    for name in ('b c', 'a'):
        picture(tmp_path / f'{name}.jpg')
    for text in ('b c.jpg 4\na.jpg\t5', 'b c.jpg, 4\na,5', 'image label\nb c 4\na 5'):
        (tmp_path / 'labels.txt').write_text(text)
        assert load_flat_folder(tmp_path, tmp_path / 'labels.txt', view=SMALL).targets == [5, 4]


def test_nothing_at_all_gets_one_sentence(tmp_path):
    (tmp_path / 'labels.txt').write_text('')
    with pytest.raises(ValueError, match='expected images .* found none'):
        load_flat_folder(tmp_path, tmp_path / 'labels.txt', view=SMALL)


def test_deep_images_are_scaled_or_refused(tmp_path):
    """16 bits of gray are 257 times 8 bits of it; 32 bits and floats have no known white."""
    levels = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    (tmp_path / 'cat').mkdir()
    Image.fromarray(levels).save(tmp_path / 'cat' / 'a.png')
    Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / 'cat' / 'b.png')
    Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / 'cat' / 'c.tif')
    Image.fromarray(levels.astype(np.float32) / 255).save(tmp_path / 'cat' / 'd.tif')
    Image.fromarray(levels.astype(np.int32)).save(tmp_path / 'cat' / 'e.tif')
    samples = load_class_folders(tmp_path, view=Preprocess(None, None))
    assert torch.equal(samples[0].image, torch.from_numpy(levels).expand(3, 40, 50))
    assert torch.equal(samples[1].image, samples[0].image) and torch.equal(samples[2].image, samples[0].image)
    for index, mode in ((3, 'F'), (4, 'I')):
        with pytest.raises(UnreadableImage, match=rf'expected 8 or 16 bits .*got 32 \(mode {mode}\)'):
            samples[index]


@pytest.mark.parametrize('text, words', [
    ('a.JPEG 1', r'got none for 1 of them, b.JPEG'),
    ('1', r'expected 2 labels in .*labels.txt, one for each image, got 1'),
    ('1000\n1', 'the numbering 1..1000 of the ILSVRC development kit'),
    ('a 1\nb 2\na 3', 'got 1 and 3 for a.JPEG'),
    ('a 1\nb 2\na.JPEG n01440764', 'got 1 and 0 for a.JPEG'),
    ('a cat\nb dog', "expected a class index or one of the 1000 WordNet ids as label, got 'cat'"),
])
def test_bad_labels_get_one_sentence(tmp_path, text, words):
    for name in 'ab':
        picture(tmp_path / 'val' / f'{name}.JPEG')
    (tmp_path / 'labels.txt').write_text(text)
    with pytest.raises(ValueError, match=words):
        load_flat_folder(tmp_path / 'val', tmp_path / 'labels.txt', view=SMALL)


def test_an_image_may_be_listed_twice_with_one_class(tmp_path):
    for name in 'ab':
        picture(tmp_path / 'val' / f'{name}.JPEG')
    (tmp_path / 'labels.txt').write_text('a 0\nb 2\na.JPEG n01440764')
    assert load_flat_folder(tmp_path / 'val', tmp_path / 'labels.txt', view=SMALL).targets == [0, 2]


def test_missing_folders_get_one_sentence(tmp_path):
    with pytest.raises(InputError, match='expected a folder at .*nowhere, found none; check --data'):
        load_class_folders(tmp_path / 'nowhere', view=SMALL)
    with pytest.raises(ValueError, match='expected images .* found none'):
        load_class_folders(tmp_path, view=SMALL)
    picture(tmp_path / 'a.png')
    with pytest.raises(ValueError, match='found 1 images; for a flat folder give their classes with --labels FILE'):
        load_class_folders(tmp_path, view=SMALL)
    with pytest.raises(InputError, match='found no such file; check --labels'):
        load_flat_folder(tmp_path, tmp_path / 'labels.txt', view=SMALL)


def test_a_limit_spreads_over_the_classes(folder):
    few = load_class_folders(folder, view=SMALL).take(4)
    assert few.targets == [0, 1, 281, 999]
    assert (few.spec.get('images'), few.spec.get('limit')) == (12, 4) and 'limit=4' in few.name
    for limit in (0, 13):
        with pytest.raises(ValueError, match=rf'expected a limit in 1..12, the number of images, got {limit}'):
            load_class_folders(folder, view=SMALL).take(limit)


def test_broken_files_are_named(folder):
    whole = (folder / WNIDS[0] / '1.JPEG').read_bytes()
    (folder / WNIDS[0] / '1.JPEG').write_bytes(whole[:len(whole) // 2])
    (folder / WNIDS[0] / '2.JPEG').write_bytes(b'no image at all')
    samples = load_class_folders(folder, view=SMALL)
    for index, words in ((1, 'truncated'), (2, 'cannot identify')):
        with pytest.raises(UnreadableImage, match=f'n01440764/{index}.JPEG could not be read: .*{words}') as caught:
            samples[index]
        assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    with pytest.raises(UnreadableImage, match='expected 64 x 64 pixels at least, got 50 x 40'):
        load_class_folders(folder, view=Preprocess(64, None))[0]


def test_an_unknown_view_gets_one_sentence():
    with pytest.raises(ValueError, match="got 'bicubic' and 'border'; --preprocess imagenet fits"):
        Preprocess(224, 256, 'bicubic', 'border')


@pytest.mark.parametrize('layout', ['{corruption}', 'group/{corruption}'])
def test_published_folders_in_both_layouts(tmp_path, layout):
    for corruption in ('fog', 'snow'):
        for severity in (1, 2):
            for wnid in WNIDS:
                place = tmp_path / layout.format(corruption=corruption) / str(severity) / wnid
                picture(place / 'x.JPEG', seed=hash((corruption, severity)) % 1000, size=(32, 32))
    view = Preprocess(32, None)
    samples = load_corruption_folders(tmp_path, ['fog', 'snow'], [1, 2], view=view)
    root = '/'.join(tmp_path.parts[-2:])
    assert re.fullmatch(rf"folder\(images=4, pictures='[0-9a-f]{{16}}', root='{root}', size=32\)", samples.name)
    assert len(samples) == 4  # with folders for all 1000 classes it would be imagenet_c
    for wnid in labelsets.get_wnid_indices():
        (tmp_path / layout.format(corruption='fog') / '1' / wnid).mkdir(exist_ok=True)
    assert load_corruption_folders(tmp_path, ['fog'], [1], view=view).name.startswith('imagenet_c(images=4, ')
    assert load_corruption_folders(tmp_path, ['snow'], [2], view=view).name == samples.name
    fog = Condition(Spec.of('fog', severity=2))
    here, rest = samples.at(fog)
    assert rest == CLEAN and here.targets == [0, 1, 281, 999]
    with Image.open(tmp_path / layout.format(corruption='fog') / '2' / WNIDS[0] / 'x.JPEG') as whole:
        assert torch.equal(here[0].image, torch.from_numpy(np.array(whole)).permute(2, 0, 1))
    with pytest.raises(InputError, match='has no images under clean; it has 4 other conditions'):
        samples.at(CLEAN)
    with pytest.raises(InputError, match='expected the folders .*snow/3, fog/3|fog/3, .*snow/3'):
        load_corruption_folders(tmp_path, ['fog', 'snow'], [1, 2, 3], view=view)
    assert 'limit=2' in load_corruption_folders(tmp_path, ['fog'], [1, 2], view=view, limit=2).name


def test_published_set_is_also_named_by_its_clean_images(folder, tmp_path):
    """Their view and their files: the clean error of one protocol is not that of another."""
    root = tmp_path / 'set' / 'fog' / '1'
    for path in folder.rglob('*.JPEG'):
        picture((root / path.relative_to(folder)).with_suffix('.png'), size=(32, 32))

    def named(view, place=folder):
        return load_corruption_folders(tmp_path / 'set', ['fog'], [1], view=Preprocess(32, None),
                                       clean=load_class_folders(place, view=view)).name
    first, second = named(SMALL), named(Preprocess(32, 36, 'bicubic'))
    assert "clean_interpolation='bilinear', clean_resize=40, images=12" in first and len({first, second}) == 2
    picture(folder / WNIDS[0] / '0.JPEG', seed=9, size=(60, 60))
    assert named(SMALL) != first
    picture(folder / WNIDS[0] / 'more.JPEG')
    with pytest.raises(ValueError, match=r'expected the same images in .*val as in .*fog/1, got 13 and 12, and more '
                                         r'0 not in both; give the clean images of this set with --data'):
        named(SMALL)


def test_an_incomplete_published_folder_is_named(tmp_path):
    for severity in (1, 2):
        for number in range(severity):
            picture(tmp_path / 'fog' / str(severity) / WNIDS[0] / f'{number}.JPEG')
    with pytest.raises(ValueError, match=r'got 1 under fog\(severity=1\) and 2 elsewhere'):
        load_corruption_folders(tmp_path, ['fog'], [1, 2], view=SMALL)


def test_the_cache_gives_the_same_images_without_reading(folder, tmp_path, monkeypatch):
    samples = load_class_folders(folder, view=SMALL)
    cached = CachedSamples(samples, tmp_path / 'cache')
    assert cached.name == samples.name and len(cached) == 12
    first = [cached[i] for i in range(12)]
    monkeypatch.setattr(ImageFolderSamples, '__getitem__', None)  # nothing reads an image from here on
    reopened = pickle.loads(pickle.dumps(CachedSamples(samples, tmp_path / 'cache')))
    again = [reopened[i] for i in range(12)]
    monkeypatch.undo()
    for index, plain in enumerate(samples[i] for i in range(12)):
        for sample in (first[index], again[index]):
            assert (sample.id, sample.target) == (plain.id, plain.target) and torch.equal(sample.image, plain.image)
    assert {path.suffix: path.stat().st_size for path in (tmp_path / 'cache').iterdir()} == {
        '.images': 12 * 3 * 32 * 32, '.crc32': 48}


def test_the_cache_gives_nothing_that_the_disk_lost(folder, tmp_path):
    """The checksum reached the disk before a power loss, the image did not, or in part."""
    samples = load_class_folders(folder, view=SMALL)
    for index in range(12):
        CachedSamples(samples, tmp_path)[index]
    [path] = tmp_path.glob('*.images')
    with path.open('r+b') as images:
        images.write(bytes(3 * 32 * 32))
        images.seek(5 * 3 * 32 * 32 + 1000)
        images.write(bytes(500))
    again = CachedSamples(samples, tmp_path)
    assert all(torch.equal(again[index].image, samples[index].image) for index in range(12))
    with path.open('r+b') as images:
        images.write(bytes(3 * 32 * 32))
    again[0]
    assert path.read_bytes()[:3 * 32 * 32] == samples[0].image.numpy().tobytes()


def test_a_sparse_cache_gets_its_blocks(folder, tmp_path):
    """A write to a block that is not there, on a full disk, would end the process by SIGBUS."""
    samples = load_class_folders(folder, view=SMALL)
    first = CachedSamples(samples, tmp_path)[0]
    for path in tmp_path.glob('*.*'):
        content = path.read_bytes()
        assert path.stat().st_blocks * 512 >= path.stat().st_size
        path.unlink()
        with path.open('wb') as file:
            file.write(content[:3 * 32 * 32])
        os.truncate(path, len(content))
    again = CachedSamples(samples, tmp_path)
    assert all(path.stat().st_blocks * 512 >= path.stat().st_size for path in tmp_path.glob('*.images'))
    assert torch.equal(again[0].image, first.image)


def test_a_changed_image_begins_a_new_map(folder, tmp_path):
    """Another image with the size and the times of the first."""
    CachedSamples(load_class_folders(folder, view=SMALL), tmp_path / 'cache')[0]
    path = folder / WNIDS[0] / '0.JPEG'
    times, size = path.stat(), path.stat().st_size
    picture(path, seed=99)
    path.write_bytes(path.read_bytes()[:size].ljust(size, b'\0'))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    CachedSamples(load_class_folders(folder, view=SMALL), tmp_path / 'cache')[0]
    CachedSamples(load_class_folders(folder, view=Preprocess(32, 36)), tmp_path / 'cache')[0]
    assert len(list((tmp_path / 'cache').glob('*.images'))) == 3


def test_cache_rejects_what_it_cannot_do(folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match='expected images of one size to cache'):
        CachedSamples(load_class_folders(folder, view=Preprocess(None, None)), tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr('os.posix_fallocate', full)
    with pytest.raises(ValueError, match='cache.* needs 3.69e-05 GB, .*No space left on device.*--cache DIR'):
        CachedSamples(load_class_folders(folder, view=SMALL), tmp_path / 'cache')
    assert not list((tmp_path / 'cache').iterdir())  # nothing keeps the disk full


def test_the_cache_writes_zeros_where_nothing_can_be_allocated(folder, tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    monkeypatch.setattr('os.posix_fallocate', unsupported)
    cached = CachedSamples(load_class_folders(folder, view=SMALL), tmp_path)
    assert all(path.stat().st_blocks * 512 >= path.stat().st_size for path in tmp_path.glob('*.*'))
    assert torch.equal(cached[3].image, load_class_folders(folder, view=SMALL)[3].image)
