"""tools/eval_shifts.py on a toy model and small folders."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pit_downstream.datasets.backgrounds import IN9
from pit_downstream.datasets.base import Preprocess
from pit_downstream.datasets.labelsets import get_subset_indices, load_real_labels
from pit_downstream.evaluation.models import build_classifier
from tests.datasets import shift_folders
from tests.evaluation import toy

TOOL = Path(__file__).parents[2] / 'tools' / 'eval_shifts.py'
MODEL = 'tests.tools.test_eval_shifts:classifier'
LIKELY = (6, 15, 17, 22, 23, 33, 151, 418, 749, 795, 954)  # so that errors lie between 0 and 1
PLACES = {'imagenet_a': 'imagenet-a', 'imagenet_v2_top_images': 'imagenetv2-top-images-format-val',
          'objectnet': 'objectnet-1.0', 'in9_original': 'bg_challenge', 'in9_mixed_same': 'bg_challenge',
          'in9_mixed_rand': 'bg_challenge'}


def classifier():
    model = toy.Toy(1000)
    with torch.no_grad():
        model.head.bias[list(LIKELY)] = 1000.
    return model


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shifts') / 'data'
    for name, place in PLACES.items():
        shift_folders.make(name, folder / place)
    shift_folders.validation(folder / 'imagenet' / 'val')
    return folder


@pytest.fixture
def measured(data, tmp_path, monkeypatch, in_process):
    """measured(*flags) runs the tool in this process where data/ lies: (exit code, stdout, stderr)."""
    (tmp_path / 'data').symlink_to(data)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.path', sys.path.copy())

    def run(*flags, model=MODEL):
        return in_process(TOOL.name, '--model', model, '--output-dir', 'store', '--workers', '0', *flags)
    return run


@pytest.fixture
def pictures_of():
    """pictures_of(root, classes, count, first=0) writes images that differ into a folder for each class."""
    def write(root, classes, count, first=0):
        for place, (folder, index) in enumerate((folder, index) for folder in classes for index in range(count)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            cells = np.random.default_rng(first + place).integers(0, 256, (4, 4, 3), np.uint8)  # what the toy looks at
            Image.fromarray(cells.repeat(8, 0).repeat(8, 1)).save(root / folder / f'{index}.png')
        return root
    return write


def classes_file(tmp_path, count):
    (tmp_path / 'classes.txt').write_text('\n'.join(('ant', 'bee', 'cow', 'dog', 'emu', 'fox', 'gnu', 'hen')[:count]))
    return '--classes', 'classes.txt'


def test_all_available_datasets_are_measured(measured, tmp_path):
    code, out, said = measured('--csv', 'out.csv', '--json', 'out.json')
    assert code == 0, said
    lines = out.splitlines()
    assert lines[0].startswith(f'{MODEL}(mean=') and lines.pop(1).startswith('preprocessing: ')
    assert lines[2].split()[:2] == ['dataset', 'images']
    assert [line.split()[0] for line in lines[3:11]] == [
        'imagenet', 'imagenet_a', 'imagenet_v2_top_images', 'imagenet_real', 'objectnet', 'in9_original',
        'in9_mixed_same', 'in9_mixed_rand']
    assert [line.split()[1] for line in lines[3:11]] == ['12', '10', '10', '11', '4', '18', '18', '18']
    assert lines[13].startswith('BG-gap') and len(lines) == 14
    rows = list(csv.DictReader((tmp_path / 'out.csv').open()))
    assert len(rows) == 7 + 4 and {row['condition'] for row in rows} == {'clean'}
    counts = {row['metric']: int(row['count']) for row in rows if row['dataset'].startswith('folder(')}
    assert counts == {'top1_error': 12, 'imagenet_a_clean_error': 8, 'imagenet_real_error': 11,
                      'imagenet_real_clean_error': 11, 'objectnet_clean_error': 6}
    summary = json.loads((tmp_path / 'out.json').read_text())['summary']
    assert {'imagenet_a_gap', 'imagenet_real_gap', 'objectnet_gap', 'in9_mixed_rand_gap', 'bg_gap'} <= set(summary)
    before = (tmp_path / 'store' / 'results.jsonl').read_bytes()
    code, again, _ = measured('--batch-size', '5')
    assert (code, again) == (0, out)  # the second run adds nothing and prints the table
    assert (tmp_path / 'store' / 'results.jsonl').read_bytes() == before


def test_errors_are_those_of_the_logits(measured, data, tmp_path):
    """Counted once more from the logits of each image, by the rule of its dataset; six classes are a 'folder'."""
    assert measured('--batch-size', '7')[0] == 0
    kept = {(record['dataset'].split('(')[0], record['metric']): record['value'] for record in map(
        json.loads, (tmp_path / 'store' / 'results.jsonl').read_text().splitlines())}
    predictor = build_classifier(MODEL)

    def best(place, among=range(1000), view=predictor.view):
        """(path, predicted class) of every image."""
        paths = [path for path in (data / place).rglob('*.*') if path.suffix in ('.jpg', '.JPEG', '.png')]
        images = torch.stack([view(Image.open(path)) for path in paths]).float() / 255
        logits = predictor.predict(images, None).predictions[:, list(among)]
        return [(path, list(among)[place]) for path, place in zip(paths, logits.argmax(1), strict=True)]

    def share(wrong):
        return sum(wrong) / len(wrong)
    classes = get_subset_indices('imagenet_a')
    assert 0 < kept['imagenet_a', 'top1_error'] == share(
        [predicted != classes[path.parent.name] for path, predicted in best('imagenet-a', classes.values())]) < 1
    labels = [(predicted, load_real_labels()[int(path.stem[-8:]) - 1]) for path, predicted in best('imagenet/val')]
    assert kept['folder', 'imagenet_real_error'] == share([one not in right for one, right in labels if right])
    assert 0 < kept['in9_mixed_rand', 'top1_error'] == share(
        [predicted not in IN9[path.parent.name[3:]] for path, predicted in
         best('bg_challenge/mixed_rand/val', view=Preprocess(32, 32))]) < 1
    objects = {'banana': (954,), 'pen': (418, 749)}
    assert kept['objectnet', 'top1_error'] == share(
        [predicted not in objects[path.parent.name] for path, predicted in
         best('objectnet-1.0/images', view=replace(predictor.view, border=2)) if path.parent.name in objects])
    clean = [(predicted, path.parent.name) for path, predicted in best('imagenet/val', classes.values())]
    assert kept['folder', 'imagenet_a_clean_error'] == share(
        [predicted != classes[wnid] for predicted, wnid in clean if wnid in classes])


def no_imagenet(data, tmp_path):
    """data/ with all but ImageNet's validation images."""
    (tmp_path / 'data').unlink()
    (tmp_path / 'data').mkdir()
    for folder in data.iterdir():
        if folder.name != 'imagenet':
            (tmp_path / 'data' / folder.name).symlink_to(folder)


def test_a_part_without_clean_images(measured, data, tmp_path):
    no_imagenet(data, tmp_path)
    code, out, said = measured('--shifts', 'imagenet_a', 'in9', '--limit', '6', '--cache', 'cache')
    assert code == 0, said
    lines = out.splitlines()[1:]
    assert [line.split()[0] for line in lines[3:7]] == [
        'imagenet_a', 'in9_original', 'in9_mixed_same', 'in9_mixed_rand']
    assert lines[3].split()[1] == '6' and lines[3].split()[-2:] == ['-', '-']
    assert lines[-1].startswith('no gap of imagenet_a: ') and '--shifts imagenet_a in9 --limit 6' in lines[-1]
    stored = [json.loads(line)['dataset'] for line in (tmp_path / 'store' / 'results.jsonl').read_text().splitlines()]
    assert all('limit=6' in dataset for dataset in stored) and list((tmp_path / 'cache').iterdir())


def test_custom_shift(measured, tmp_path, pictures_of):
    """By a classifier of eight classes, of which three are there; the gap is to the clean images of this run, also
    where the store has those of another folder under the same names."""
    roots = {name: pictures_of(tmp_path / name, ('ant', 'bee', 'cow'), count, first=first)
             for name, count, first in (('clean', 4, 0), ('other', 5, 90), ('fog', 3, 50), ('rain', 2, 70))}
    predictor = build_classifier(toy.NAME)

    def error(root):
        wrong = [predictor.predict(predictor.view(Image.open(path))[None].float() / 255, None).predictions.argmax()
                 != index for index, folder in enumerate(('ant', 'bee', 'cow'))
                 for path in sorted((roots[root] / folder).iterdir())]
        return sum(map(int, wrong)) / len(wrong)
    for clean, shift in (('clean', 'fog'), ('clean', 'rain'), ('other', 'fog')):
        code, out, said = measured('--data', clean, '--shifts', f'shift_x={shift}', '--json', 'out.json',
                                   *classes_file(tmp_path, 8), model=toy.NAME)
        assert code == 0, said
        rows = [line.split() for line in out.splitlines()[4:]]
        assert [row[:3] for row in rows] == [
            [name, str(len(list(roots[root].rglob('*.png')))), f'{error(root):.4f}']
            for name, root in (('clean', clean), ('shift_x', shift))]
        summary = json.loads((tmp_path / 'out.json').read_text())['summary']
        assert {name: estimate['value'] for name, estimate in summary.items()} == {
            'shift_x_error': error(shift), 'shift_x_gap': error(shift) - error(clean)}
    assert error('clean') != error('other') and error('fog') != error('rain'), {root: error(root) for root in roots}


def test_custom_shift_with_some_classes(measured, tmp_path, pictures_of):
    """Its clean error is that on these classes, also where another folder of that name has others; those without a
    image count in neither."""
    pictures_of(tmp_path / 'clean', ('bee', 'cow', 'dog'), 12)
    parts = {'some': ('bee', 'dog'), 'others': ('cow', 'dog')}
    for root, classes in parts.items():
        pictures_of(tmp_path / root, classes, 3, first=40)
    for folder in ('clean/ant', 'some/cow'):
        (tmp_path / folder).mkdir()
    predictor, indices = build_classifier(toy.FOUR), {'bee': 1, 'cow': 2, 'dog': 3}
    clean = {}
    for root, classes in parts.items():
        code, out, said = measured('--data', 'clean', '--shifts', f'shift_x={root}', *classes_file(tmp_path, 4),
                                   model=toy.FOUR)
        assert code == 0, said
        wrong = [int(predictor.predict(predictor.view(Image.open(path))[None].float() / 255, None).predictions.argmax())
                 != indices[folder] for folder in classes for path in (tmp_path / 'clean' / folder).iterdir()]
        row = out.splitlines()[-1].split()  # dataset, images, error, its interval, matching clean error ...
        clean[root] = row[6]
        assert clean[root] == f'{sum(wrong) / 24:.4f}' and row[1] == '6'
    assert clean['some'] != clean['others']


@pytest.mark.parametrize('flags, words', [
    (('shift_fog',), 'shift_fog must be given once with a folder, got no folders. Pass --shifts shift_fog=DIR once.'),
    (('shift_fog=fog', 'shift_fog=same'), 'shift_fog must be given once with a folder, got two folders. '),
    (('shift_Fog=same',), "like shift_fog, of lower-case letters, digits and _, got 'shift_Fog'"),
    (('shift_fog=fog',), 'Folders in fog must be named by classes that have images in clean, got cow, emu'),
    (('shift_none=none',), 'No images in the 0 class folders of none'),
    (('shift_same=clean',), 'shift_same must be other images than the clean ones, got clean for both'),
    (('shift_gone=gone',), 'No folder at gone. Check --shifts shift_gone=DIR'),
    (('shift_fog=same', '--labels', 'labels.txt'), '--labels does not apply to shift_fog, whose clean images are '
     'in class folders')])
def test_custom_shift_that_does_not_fit(measured, tmp_path, pictures_of, flags, words):
    for root, classes in (('clean', ('ant', 'bee')), ('same', ('ant', 'bee')), ('fog', ('bee', 'cow', 'emu'))):
        pictures_of(tmp_path / root, classes, 1)
    for folder in ('none/ant', 'clean/cow'):
        (tmp_path / folder).mkdir(parents=True)  # without an image
    code, _, said = measured('--data', 'clean', '--shifts', *flags, *classes_file(tmp_path, 8), model=toy.NAME)
    assert (code, len(said.splitlines())) == (2, 1) and words in said and not (tmp_path / 'store').exists()


@pytest.mark.slow
def test_two_ranks_keep_what_one_keeps(measured, tool, tmp_path, monkeypatch):
    """The challenge too, whose second rank has one foreground of each class."""
    shift_folders.challenge(tmp_path / 'pasted', side=toy.SIDE)
    flags = ('--shifts', 'imagenet_a', 'imagenet_real', 'objectnet', 'in9_original', 'in9_challenge=pasted')
    code, out, said = measured(*flags)
    assert code == 0, said
    assert out.splitlines()[9].split()[:2] == ['in9_challenge', '18']
    monkeypatch.setenv('PYTHONPATH', str(TOOL.parents[1]))
    done = tool('eval_shifts.py', '--model', MODEL, '--output-dir', 'two', '--workers', '0', '--device', 'cpu', *flags,
                start=(sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2'))
    assert done.returncode == 0, done.stderr
    assert done.stdout == out
    assert (tmp_path / 'two' / 'results.jsonl').read_text() == (tmp_path / 'store' / 'results.jsonl').read_text()
    assert len((tmp_path / 'two' / 'runs.jsonl').read_text().splitlines()) == 5


def test_bad_input_ends_with_one_sentence(measured, data, tmp_path):
    for name in get_subset_indices('imagenet_r'):
        (tmp_path / 'wrong' / name).mkdir(parents=True)
    for flags, words in ((('--shifts', 'imagenet_a=wrong'), 'which looks like ImageNet-R: 200 folders named by '),
                         (('--shifts', 'imagenet_q'), "no dataset named 'imagenet_q'; did you mean imagenet_"),
                         (('--shifts', 'imagenet_sketch'), 'No folder at data/imagenet-sketch'),
                         (('--data', 'wrong'), "Expected ImageNet's validation images in folders of the 1000 classes "
                          'in wrong, which looks like ImageNet-R: 200'),
                         (('--shifts', 'imagenet_a', '--data', 'nowhere'),
                          'no folder of images: nowhere. Pass another --data DIR')):
        code, _, said = measured(*flags)
        assert (code, len(said.splitlines())) == (2, 1) and words in said and not (tmp_path / 'store').exists()
    no_imagenet(data, tmp_path)
    code, _, said = measured('--shifts', 'imagenet_real')
    assert code == 2 and 'imagenet_real needs the validation images of ImageNet, got none' in said
    code, _, said = measured(model=toy.NAME)
    assert code == 2 and 'shifts of ImageNet need a classifier of its 1000 classes, got 8 classes of' in said
    (tmp_path / 'data').rename(tmp_path / 'elsewhere')
    code, _, said = measured()
    assert code == 2 and said.startswith('no shifted dataset in data/. Put one where')


def test_places_are_looked_for_before_a_model_is_built(measured):
    code, _, said = measured('--shifts', 'imagenet_a=nowhere', model='no_such_model')
    assert code == 2 and said.startswith('No folder at nowhere. Check --shifts imagenet_a=DIR')


def test_unreadable_images_stop_the_table(measured, data, tmp_path):
    shift_folders.make('imagenet_r', tmp_path / 'r')
    broken = sorted((tmp_path / 'r').rglob('*.jpg'))[0]
    broken.write_bytes(b'broken')
    no_imagenet(data, tmp_path)
    few = ('--shifts', 'imagenet_r=r')
    code, _, said = measured(*few)
    assert code == 2 and f'1 images are unreadable: {broken.parent.name}/0.jpg (' in said
    assert measured(*few, '--allow-missing', '1')[0] == 0
    code, _, said = measured(*few)
    assert code == 2 and 'is of 9 of 10 images: 1 could not be read' in said
