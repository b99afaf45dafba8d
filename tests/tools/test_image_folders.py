"""Folders of images as users have them: exchanged, damaged and foreign files, junk, missing classes."""

import errno
import json
import os

import numpy as np
import pytest
from PIL import Image

from pit_downstream.datasets.labelsets import Classes, get_wnid_indices, sort_training_classes
from tests.evaluation import toy

FLAGS = ('--model', toy.NAME, '--data', 'val', '--output-dir', 'store', '--corruptions', 'brightness', '--severities',
         '1', '--device', 'cpu')
ANIMALS = ('ant', 'bee', 'cow', 'dog', 'emu', 'fox', 'gnu', 'hen')


@pytest.fixture
def measure(tmp_path, run_tool):
    """measure(*flags) -> clean top-1 error and number of images by dataset, in the order of the store."""
    def run(*flags):
        done = run_tool('eval_imagenet_c.py', *FLAGS, *flags)
        assert done.code == 0, done.err
        lines = [json.loads(line) for line in (tmp_path / 'store' / 'results.jsonl').read_text().splitlines()]
        return {line['dataset']: (line['value'], line['count']) for line in lines
                if (line['condition'], line['metric']) == ('clean', 'top1_error')}
    return run


def draw(path, seed=0, size=(36, 32), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(cells).resize(size, Image.Resampling.NEAREST).save(path, **options)
    return path


def error_of(path, target):
    """Whether the toy misclassifies an image, computed without a dataset."""
    from pit_downstream.evaluation.models import build_classifier
    predictor = build_classifier(toy.NAME)
    with Image.open(path) as image:
        pixels = predictor.view(image.convert('RGB'))[None].float() / 255
    return int(predictor.predict(pixels, None).predictions.argmax()) != target


def test_exchanged_images_of_equal_size_are_measured_again(tmp_path, measure):
    paths = [draw(tmp_path / 'val' / toy.WNIDS[index % 4] / f'{index}.bmp', seed=12 + index) for index in range(12)]
    assert len({path.stat().st_size for path in paths}) == 1
    [(first, before)] = measure().items()
    wrong = [error_of(path, index % 4) for index, path in enumerate(paths)]
    exchanged = [error_of(path, (index + 1) % 4) for index, path in enumerate(paths)]
    times = [path.stat() for path in paths]
    for index in range(0, 12, 4):  # every image moves on by one class
        contents = [paths[index + (place - 1) % 4].read_bytes() for place in range(4)]
        for place in range(4):
            paths[index + place].write_bytes(contents[place])
            os.utime(paths[index + place], ns=(times[index].st_atime_ns, times[index].st_mtime_ns))
    found = measure()
    assert list(found)[0] == first and len(found) == 2
    assert before[0] == sum(wrong) / 12 != sum(exchanged) / 12 == list(found.values())[1][0]
    assert measure() == found  # and once only


def test_black_images_of_equal_size_are_measured_again(tmp_path, measure):
    paths = [draw(tmp_path / 'val' / toy.WNIDS[index % 4] / f'{index}.bmp', seed=index) for index in range(8)]
    measure('--cache', 'cache')
    for path in paths:
        Image.new('RGB', (36, 32)).save(path)
    found = list(measure('--cache', 'cache').values())
    assert len(found) == 2 and found[1][0] == sum(error_of(paths[0], target) for target in range(4)) / 4


def test_changed_published_images_are_refused(tmp_path, run_tool):
    """The name of the set holds the names of its images; the content of a condition's images is recorded with it."""
    for severity in (1, 2):
        for index, wnid in enumerate(toy.WNIDS):
            draw(tmp_path / 'set' / 'brightness' / str(severity) / wnid / 'x.bmp', seed=10 * severity + index)
    flags = ('--model', toy.NAME, '--corrupted-data', 'set', '--corruptions', 'brightness', '--output-dir', 'store',
             '--csv', 'out.csv', '--severities')
    both = run_tool('eval_imagenet_c.py', *flags, '1', '2')
    assert both.code == 0 and 'content' not in (tmp_path / 'out.csv').read_text()
    before = (tmp_path / 'store' / 'results.jsonl').read_bytes()
    draw(tmp_path / 'set' / 'brightness' / '2' / toy.WNIDS[0] / 'x.bmp', seed=99)
    assert run_tool('eval_imagenet_c.py', *flags, '1').code == 0  # the other condition is as it was
    changed = run_tool('eval_imagenet_c.py', *flags, '1', '2')
    assert changed.code == 2 and 'brightness(severity=2)' in changed.err and '--corrupted-name NAME' in changed.err
    assert (tmp_path / 'store' / 'results.jsonl').read_bytes() == before
    assert run_tool('eval_imagenet_c.py', *flags, '1', '2', '--corrupted-name', 'new').code == 0


def damaged_png(path, seed=0):
    """A PNG with one wrong byte in the middle of its pixels, and an intact end."""
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def test_every_format_is_read_and_every_unreadable_file_counted(tmp_path, run_tool, measure, caplog):
    folder = tmp_path / 'val' / toy.WNIDS[0]
    for name in ('a.jfif', 'b.pgm', 'c.gif', 'd.JPG', 'e.webp', 'f.png'):
        draw(folder / name, **({'format': 'JPEG'} if name == 'a.jfif' else {}))
    os.rename(folder / 'f.png', os.fsencode(folder) + b'/caf\xe9.png')
    damaged_png(folder / 'x_damaged.png')
    (folder / 'x_dangling.png').symlink_to('nowhere.png')
    (folder / 'x_cut.gif').write_bytes((folder / 'c.gif').read_bytes()[:40])
    header = Image.new('1', (20_000, 10_000))  # 200 million pixels
    header.save(folder / 'x_huge.png')
    (folder / 'notes.txt').write_text('')
    done = run_tool('eval_imagenet_c.py', *FLAGS)
    assert done.code == 2 and '4 images are unreadable' in done.err and len(done.err.splitlines()) == 1
    for name in ('x_cut.gif', 'x_damaged.png', 'x_dangling.png', 'x_huge.png'):
        assert name in done.err
    assert [count for _, count in measure('--allow-missing', '4').values()] == [6]
    assert '1 no image' in caplog.text and 'notes.txt' in caplog.text


@pytest.mark.parametrize('level', [0, 6])
def test_a_damaged_png_is_unreadable_wherever_the_damage_is(tmp_path, level):
    """Without compression every byte is a pixel; Pillow reads some of the damage without an error."""
    from pit_downstream.datasets.base import UnreadableImage, load_image
    path = tmp_path / 'a.png'
    Image.effect_noise((300, 250), 80).convert('RGB').save(path, compress_level=level)
    whole = path.read_bytes()
    assert load_image(path).size == (300, 250)
    for place in (*range(whole.index(b'IDAT') + 4, len(whole) - 16, 9973), *range(len(whole) - 60, len(whole) - 16, 7)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1:])
        with pytest.raises(UnreadableImage):
            load_image(path)


def test_a_full_disk_under_the_cache_gets_one_sentence(tmp_path, run_tool, monkeypatch):
    for index in range(8):
        draw(tmp_path / 'val' / toy.WNIDS[index % 4] / f'{index}.png', seed=index)
    for number in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        monkeypatch.setattr('os.posix_fallocate', raising(OSError(number, os.strerror(number))))
        done = run_tool('eval_imagenet_c.py', *FLAGS, '--cache', 'cache')
        assert done.code == 2 and len(done.err.splitlines()) == 1, done.err
        assert '--cache' in done.err and 'needs 2.46e-05 GB' in done.err and os.strerror(number) in done.err
        assert not list((tmp_path / 'cache').iterdir())


def raising(error):
    def function(*_):
        raise error
    return function


def test_junk_is_ignored_with_a_counted_warning(tmp_path, measure, caplog):
    """As archives made on a Mac contain it."""
    paths = [draw(tmp_path / 'val' / toy.WNIDS[index % 4] / f'{index}.png', seed=index) for index in range(4)]
    clean = list(measure().values())
    assert 'ignored' not in caplog.text
    for name in ('__MACOSX', '.ipynb_checkpoints', 'spare'):
        (tmp_path / 'val' / name).mkdir()
    draw(tmp_path / 'val' / '__MACOSX' / 'x.png')
    (paths[0].parent / '._0.png').write_bytes(b'\0\5\26\7')
    draw(tmp_path / 'val' / 'loose.png')
    draw(paths[1].parent / 'more' / 'x.png')
    assert list(measure().values()) == clean
    for words in ('3 hidden', '__MACOSX', '._0.png', '1 outside', 'loose.png', '1 in deeper folders', '/more',
                  '1 class folders without images (spare)'):
        assert words in caplog.text


@pytest.mark.parametrize('folders, words', [
    (('cat', 'dog'), ('cat, dog', '--classes FILE')),
    (('20190000', '20190004'), ('20190000', 'below 1000', '--classes FILE')),
    (('1', '1000'), ('1000', '--classes FILE')),
    (('1', '01'), ('different', '01, 1')),
    (('cat/cat', 'dog/dog'), ('one level deeper', 'cat/cat')),
])
def test_folders_that_are_no_classes_of_the_model_are_refused(tmp_path, run_tool, folders, words):
    for folder in folders:
        draw(tmp_path / 'val' / folder / 'x.png')
    done = run_tool('eval_imagenet_c.py', *FLAGS, '--model', 'pit_ti(img_size=32)', '--weights', 'random')
    assert done.code == 2 and len(done.err.splitlines()) == 1 and not (tmp_path / 'store').exists()
    assert all(word in done.err for word in words), done.err


def test_a_folder_with_a_missing_class_needs_names(tmp_path, run_tool, caplog):
    """Eight outputs, seven folders: with --classes each keeps its index, without it is refused."""
    wrong = []
    for index, name in enumerate(ANIMALS):
        path = draw(tmp_path / 'val' / name / 'x.png', seed=index)
        if index != 2:
            wrong.append(error_of(path, index))
    flags = (*FLAGS, '--model', 'tests.tools.test_image_folders:nameless')
    done = run_tool('eval_imagenet_c.py', *flags)
    assert done.code == 0 and 'sorted order' in caplog.text and 'ImageFolder' in caplog.text
    os.rename(tmp_path / 'val' / 'cow', tmp_path / 'cow')
    done = run_tool('eval_imagenet_c.py', *flags)
    assert done.code == 2 and '8 outputs' in done.err and '7 class folders' in done.err and '--classes FILE' in done.err
    (tmp_path / 'names.txt').write_text('\n'.join(ANIMALS))
    done = run_tool('eval_imagenet_c.py', *flags, '--classes', 'names.txt')
    assert done.code == 0 and f'{sum(wrong) / 7:.4f}' in done.out, done.err
    for text, word in (('\n'.join(ANIMALS[:7]), '7 class names'), ('ant\nant', "'ant'"), ('', 'no line')):
        (tmp_path / 'names.txt').write_text(text)
        done = run_tool('eval_imagenet_c.py', *flags, '--classes', 'names.txt')
        assert done.code == 2 and word in done.err and len(done.err.splitlines()) == 1
    assert run_tool('eval_imagenet_c.py', *flags, '--classes', 'none.txt').code == 2


def test_a_source_of_other_classes_is_refused(tmp_path, run_tool):
    draw(tmp_path / 'val' / toy.WNIDS[0] / 'x.png')
    done = run_tool('eval_adversarial.py', '--model', toy.NAME, '--data', 'val', '--attacks', 'fgsm', '--source',
                    'tests.tools.test_image_folders:renamed')
    assert done.code == 2 and 'ant, bee' in done.err and toy.WNIDS[0] in done.err, done.err


def renamed():
    model = toy.Toy(8)
    model.pretrained_cfg['label_names'] = ANIMALS
    return model


def nameless():
    model = toy.Toy(8)
    del model.pretrained_cfg['label_names']
    return model


@pytest.mark.parametrize('classes, folders, indices', [
    (Classes(1000), ['n15075141', 'n01440764'], [999, 0]),
    (Classes(1000), ['7', '998'], [7, 998]),  # ImageNet-V2
    (Classes(1000, tuple(get_wnid_indices())), ['0007'], [7]),
    (Classes(1000, tuple(get_wnid_indices())), ['n01440764'], [0]),
    (Classes(10), ['9', '3'], [9, 3]),
    (Classes(3), ['cow', 'ant', 'bee'], [2, 0, 1]),
    (Classes(3, ('10', '20', '30')), ['30'], [2]),
    (Classes(2, ('n15075141', 'n01440764')), ['n01440764'], [1]),  # a part of ImageNet, in the model's own order
])
def test_class_indices(classes, folders, indices):
    assert [classes.indices(folders)[name] for name in folders] == indices


@pytest.mark.parametrize('classes, folders', [
    (Classes(100), ['n15075141', 'n01440764']),  # of a model of 100 classes that are not named
    (Classes(10), ['10', '1']), (Classes(3), ['a', 'b', 'c', 'd']), (Classes(3, ('a', 'b', 'c')), ['a', 'x']),
    (Classes(3, ('a', 'b', 'c')), ['0', '1', '2']), (Classes(1000), ['n01440764', 'other']),
])
def test_folders_without_a_class_are_refused(classes, folders):
    with pytest.raises(ValueError):
        classes.indices(folders)


def test_training_numbers_its_folders():
    assert sort_training_classes(['10', '9', '2']) == ('2', '9', '10')
    assert sort_training_classes(['20190004', '20190000']) == ('20190000', '20190004')
    assert sort_training_classes(['b', '1', 'a']) == ('1', 'a', 'b')
