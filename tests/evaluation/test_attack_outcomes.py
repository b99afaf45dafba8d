"""Outcomes of attacks per image: equal records for any batches, ranks, kills and earlier curves."""

import json
import os
import signal
import socket
import time
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from pit_downstream.results.condition import Condition
from pit_downstream.metrics.classification import make_top1_error
from pit_downstream.results.outcomes import Identity, OutcomeStore
from pit_downstream.results.records import ResultStore
from pit_downstream.utils.spec import Spec
from pit_downstream.datasets.imagenet import load_class_folders
from pit_downstream.evaluation import evaluator as loop
from pit_downstream.evaluation.evaluator import EvaluationOptions, Evaluator, Store
from pit_downstream.evaluation.image_export import Gallery
from pit_downstream.evaluation.models import build_classifier
from pit_downstream.evaluation.distributed import init_distributed, destroy_distributed
from tests.evaluation import toy

FOG = Spec.of('toy_dark', severity=2)


def conditions(levels=(1, 2, 4), corruption=None):
    return [Condition(corruption, Spec.of(name, epsilon=Fraction(level, 255), **more))
            for name, more in (('noise', {}), ('pgd', {'steps': 3}))
            for level in levels]


CONDITIONS = [*conditions(), *conditions((2,), FOG)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return toy.recognised(tmp_path_factory.mktemp('pictures') / 'val')


def attacked(folder, store, *, conditions=CONDITIONS, save=None, batch_size=8, **more):
    """The records of a run whose results.jsonl lies in `store`."""
    predictor = build_classifier(toy.FOUR)
    samples = load_class_folders(folder, view=predictor.view)
    Evaluator(predictor, samples, [make_top1_error()], conditions, store=Store(store),
              options=EvaluationOptions(batch_size=batch_size, save_images=save, **more)).run()
    return ResultStore(store / 'results.jsonl').records()


def read_outcomes(folder, store):
    predictor = build_classifier(toy.FOUR)
    samples = load_class_folders(folder, view=predictor.view)
    return OutcomeStore(store).read(Identity(predictor.name, samples.name, 0, len(samples)))


@pytest.fixture(scope='module')
def plain(folder, tmp_path_factory):
    """The records of an undisturbed run in batches of 8."""
    return attacked(folder, tmp_path_factory.mktemp('plain'))


def test_three_records_for_every_condition(plain):
    assert [(record.condition, record.metric) for record in plain] == [
        (str(condition), metric) for condition in CONDITIONS for metric in ('forwards', 'backwards', 'top1_error')]
    assert {record.count for record in plain} == {40}
    errors = [record.value for record in plain if record.metric == 'top1_error' and 'pgd' in record.condition]
    clean = next(record.value for record in plain if record.metric == 'top1_error')
    assert .2 == clean <= errors[0] <= errors[1] <= errors[2] and errors[2] > .2


@pytest.mark.parametrize('size', [7, 32, 'auto'])
def test_batches_make_no_difference(plain, folder, tmp_path, size):
    assert attacked(folder, tmp_path, batch_size=size) == plain


def test_records_are_sums_of_the_outcomes(plain, folder, tmp_path):
    attacked(folder, tmp_path)
    lines = list(map(json.loads, (tmp_path / 'outcomes.jsonl').read_text().splitlines()))
    assert len(lines) == 5 * len(CONDITIONS)
    outcomes = read_outcomes(folder, tmp_path)
    for condition in map(str, CONDITIONS):
        mine = [line for line in lines if line['condition'] == condition]
        values = {record.metric: record.value for record in plain if record.condition == condition}
        assert [line['indices'] for line in mine] == [[[start, start + 8]] for start in range(0, 40, 8)]
        assert values['top1_error'] == outcomes[condition].get_dense('top1_error').mean()
        assert values['forwards'] == sum(line['costs']['forwards'] for line in mine) / 40
        assert values['backwards'] == sum(line['costs']['backwards'] for line in mine) / 40


def test_what_is_there_is_not_attacked_again(plain, folder, tmp_path, monkeypatch):
    attacked(folder, tmp_path)
    before = (tmp_path / 'outcomes.jsonl').read_bytes()
    (tmp_path / 'results.jsonl').unlink()  # stopped between the last verdict and its record
    assert attacked(folder, tmp_path) == plain
    assert (tmp_path / 'outcomes.jsonl').read_bytes() == before
    monkeypatch.setattr(loop, 'load_blocks', None)
    assert attacked(folder, tmp_path) == plain


def test_an_epsilon_added_later_begins_with_what_smaller_ones_fooled(plain, folder, tmp_path):
    attacked(folder, tmp_path, conditions=conditions((1, 2)))
    records = attacked(folder, tmp_path, conditions=conditions())
    assert sorted(records, key=str) == sorted((one for one in plain if 'dark' not in one.condition), key=str)


@pytest.mark.parametrize('lines', [1, 9, 23])
def test_from_any_line_on(plain, folder, tmp_path, lines):
    """Also from within the lines of one batch, the next of which was torn."""
    attacked(folder, tmp_path)
    whole = (tmp_path / 'outcomes.jsonl').read_bytes().split(b'\n')
    (tmp_path / 'results.jsonl').unlink()
    (tmp_path / 'outcomes.jsonl').write_bytes(b'\n'.join([*whole[:lines], whole[lines][:50]]))
    assert attacked(folder, tmp_path, batch_size=7) == plain


def test_invalid_line_is_named(folder, tmp_path):
    (tmp_path / 'outcomes.jsonl').write_text('{"model": 3}\n')
    with pytest.raises(ValueError, match='line 1 of .*outcomes.jsonl has outcomes of another version'):
        attacked(folder, tmp_path)


def fill(folder, store, pause=0., environment=(), save=None):
    """What a process of a run does. pause: seconds for which the model sleeps before each batch."""
    os.environ.update(environment)
    predictor = build_classifier(toy.FOUR, device=init_distributed('cpu'))
    samples = load_class_folders(folder, view=predictor.view)
    predictor.model.register_forward_pre_hook(lambda *_: time.sleep(pause))
    Evaluator(predictor, samples, [make_top1_error()], CONDITIONS, store=Store(store),
              options=EvaluationOptions(batch_size=8, save_images=save)).run()
    destroy_distributed()


@pytest.mark.parametrize('lines', [1, 16, 33])
def test_killed_and_run_again_gives_what_an_undisturbed_run_gives(plain, folder, tmp_path, lines):
    """kill -9 as soon as there are that many lines of outcomes, at whatever the process is then doing."""
    outcomes = tmp_path / 'outcomes.jsonl'
    process = toy.started(fill, folder, tmp_path, 0.02)
    deadline = time.monotonic() + 60
    while process.is_alive() and not (outcomes.exists() and outcomes.read_bytes().count(b'\n') >= lines):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.join()
    left = outcomes.read_bytes()
    assert process.exitcode == -signal.SIGKILL and lines <= left.count(b'\n') < 5 * len(CONDITIONS)
    outcomes.write_bytes(left + b'{"key": "0123')  # as if a write had been torn as well
    fill(folder, tmp_path)
    assert ResultStore(tmp_path / 'results.jsonl').records() == plain
    assert outcomes.read_bytes().startswith(left) and outcomes.read_bytes().count(b'\n') == 5 * len(CONDITIONS)


def test_two_ranks_give_what_one_gives(plain, folder, tmp_path):
    """With the environment that torchrun gives to its processes; then one rank goes on from what two have left."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        meet = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(free.getsockname()[1]), 'WORLD_SIZE': '2'}
    ranks = [toy.started(fill, folder, tmp_path, 0., meet | {'RANK': str(rank), 'LOCAL_RANK': str(rank)},
                         tmp_path / 'images')
             for rank in range(2)]
    for process in ranks:
        process.join(100)
    assert [process.exitcode for process in ranks] == [0, 0]
    assert ResultStore(tmp_path / 'results.jsonl').records() == plain
    assert len(list((tmp_path / 'images').rglob('*.npy'))) == 40 * (len(CONDITIONS) + 2)
    outcomes = tmp_path / 'outcomes.jsonl'
    assert outcomes.read_text().count('\n') == 5 * len(CONDITIONS)
    (tmp_path / 'results.jsonl').unlink()
    outcomes.write_bytes(outcomes.read_bytes()[:-5000])
    assert attacked(folder, tmp_path) == plain


def test_images_are_saved_exactly(folder, tmp_path):
    attacked(folder, tmp_path / 'store', save=tmp_path / 'images')
    predictor = build_classifier(toy.FOUR)
    samples = load_class_folders(folder, view=predictor.view)
    gallery = Gallery(tmp_path / 'images', model=predictor.name, dataset=samples.name, seed=0)
    errors = {condition: outcomes.get_dense('top1_error')
              for condition, outcomes in read_outcomes(folder, tmp_path / 'store').items()}
    for condition in CONDITIONS:
        radius = float(condition.attack.get('epsilon'))
        for index, id in enumerate(samples.ids):
            clean, image = (gallery.read(one, id) for one in (Condition(condition.corruption), condition))
            assert image.dtype == torch.float32 and (image - clean).abs().max() <= radius + 1e-6
            assert condition.corruption or torch.equal(clean, samples[index].image / 255)
            right = predictor.predict(image[None], None).predictions.argmax().item() == samples.targets[index]
            assert right == (errors[str(condition)][index] == 0)


def test_saving_goes_on_where_it_was(folder, tmp_path):
    """A longer curve copies what smaller epsilons fooled; what was attacked without being saved is refused."""
    attacked(folder, tmp_path / 'once', save=tmp_path / 'whole')
    attacked(folder, tmp_path / 'twice', save=tmp_path / 'parts', conditions=conditions((1, 2)))
    attacked(folder, tmp_path / 'twice', save=tmp_path / 'parts')
    names = sorted(path.relative_to(tmp_path / 'whole') for path in (tmp_path / 'whole').rglob('*.npy'))
    assert names == sorted(path.relative_to(tmp_path / 'parts') for path in (tmp_path / 'parts').rglob('*.npy'))
    assert all(np.array_equal(np.load(tmp_path / 'whole' / name), np.load(tmp_path / 'parts' / name)) for name in names)
    with pytest.raises(ValueError, match='expected in .*late the images that were attacked before, found 40 missing of '
                                         'clean .*use another --output-dir'):
        attacked(folder, tmp_path / 'once', save=tmp_path / 'late')
    with pytest.raises(ValueError, match='expected a folder for the images of other on .* which holds those of others'):
        Gallery(tmp_path / 'whole', model='other', dataset='x', seed=0)


def test_a_sheet_shows_clean_attacked_and_ten_times_the_difference(tmp_path):
    gallery = Gallery(tmp_path, model='m', dataset='d', seed=0)
    condition = Condition(None, Spec.parse('pgd(epsilon=0.5, step=0.125)'))
    clean = torch.full((2, 3, 8, 8), .25)
    gallery.keep(Condition(), clean, ['a', 'b/c'])
    gallery.keep(condition, clean + torch.tensor([.01, -.125]).view(2, 1, 1, 1), ['a', 'b/c'])
    path = gallery.sheet(condition, ['a', 'b/c'])
    assert path.name == 'clean_pgd_epsilon=0.5_step=0.125.png'
    pixels = np.array(Image.open(path))
    assert pixels.shape == (16 + 2 * 112, 3 * 112, 3)  # small ones are enlarged
    assert pixels[16::112, ::112, 0].tolist() == [[64, 66, 153], [64, 32, 0]]
