"""The evaluator on a toy classifier and forty images: equal numbers for any batches, workers, ranks and kills."""

import dataclasses
import json
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from pit_downstream.benchmarks.imagenet_c import list_conditions
from pit_downstream.cli.errors import report_errors
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.outcomes import Identity, OutcomeStore
from pit_downstream.results.records import ResultStore
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import CORRUPTIONS
from pit_downstream.utils.spec import Spec
from pit_downstream.corruptions import BatchRng
from pit_downstream.datasets.base import ImageFolderSamples, ImageNetCFolders, Preprocess, UnreadableImage
from pit_downstream.datasets.cache import CachedSamples
from pit_downstream.datasets.imagenet import load_class_folders, load_corruption_folders
from pit_downstream.evaluation import evaluator as loop
from pit_downstream.evaluation.classifier import ClassifierPredictor
from pit_downstream.evaluation.corrupting import apply_corruption
from pit_downstream.evaluation import data_loading
from pit_downstream.evaluation.data_loading import RawBatch
from pit_downstream.evaluation.evaluator import EvaluationOptions, Evaluator, Store, group_conditions
from pit_downstream.evaluation.models import build_classifier
from pit_downstream.evaluation.distributed import init_distributed, destroy_distributed
from pit_downstream.metrics.classification import CLASSIFICATION, make_classification_metrics
from tests.evaluation import toy

NAMES, SEVERITIES = ('toy_noise', 'toy_dark'), (1, 3, 5)
CONDITIONS = list_conditions(NAMES, SEVERITIES)


def measure(predictor, samples, metrics, conditions, *, store=None, **options):
    """Evaluate in memory, or in the folder `store`, and return the records."""
    return list(Evaluator(predictor, samples, metrics, conditions, store=Store(store),
                          options=EvaluationOptions(**options)).run().records)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return toy.pictures(tmp_path_factory.mktemp('pictures') / 'val')


@pytest.fixture(scope='module')
def predictor():
    return build_classifier(toy.NAME)


@pytest.fixture
def samples(folder, predictor):
    return load_class_folders(folder, view=predictor.view)


@pytest.fixture(scope='module')
def plain(folder, predictor):
    """The records of an undisturbed run in batches of 8."""
    return measure(predictor, load_class_folders(folder, view=predictor.view), make_classification_metrics(),
                   CONDITIONS, batch_size=8)


def test_every_condition_gets_every_metric(plain, predictor, samples):
    assert [(record.condition, record.metric) for record in plain] == [
        (str(condition), metric) for condition in CONDITIONS for metric in CLASSIFICATION]
    assert {record.count for record in plain} == {40}
    assert {(record.model, record.dataset, record.seed) for record in plain} == {(predictor.name, samples.name, 0)}


def test_values_are_those_of_a_plain_walk(plain, predictor, samples):
    """The oracle corrupts one image at a time, by the formula of tests/evaluation/toy.py, and counts by hand."""
    values = {(record.condition, record.metric): record.value for record in plain}
    model, wrong = toy.classifier(), {str(condition): 0 for condition in CONDITIONS}
    for sample in (samples[index] for index in range(40)):
        for condition in CONDITIONS:
            image = sample.image.float() / 255
            if condition.corruption is not None and condition.corruption.name == 'toy_dark':
                strength = toy.DARK[condition.corruption.get('severity') - 1]
                image = (image * strength * 255 + 2 ** -11).floor() / 255
            if condition.corruption is None or condition.corruption.name == 'toy_dark':
                normalized = (image - torch.tensor([.5, .4, .3]).view(3, 1, 1)) / .2
                wrong[str(condition)] += model(normalized[None]).argmax().item() != sample.target
    for condition in (CLEAN, *list_conditions(['toy_dark'], SEVERITIES)[1:]):
        assert values[str(condition), 'top1_error'] == wrong[str(condition)] / 40
    assert len(set(values.values())) > 10  # the toy tells conditions apart


@pytest.mark.parametrize('options', [{'batch_size': 7}, {'batch_size': 40}, {'batch_size': 'auto'},
                                     {'batch_size': 16, 'workers': 2}], ids=str)
def test_batches_and_workers_make_no_difference(plain, predictor, samples, options):
    assert measure(predictor, samples, make_classification_metrics(), CONDITIONS, **options) == plain


def test_a_model_in_float32_agrees_to_its_last_bits(samples, predictor):
    """README says how far: errors exactly, NLL and ECE to about 1e-8. The toy sums in float64, this one does not."""
    class Single(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.head = torch.nn.Linear(3 * toy.SIDE ** 2, 8)

        def forward(self, images):
            return self.head(images.flatten(1))
    single = ClassifierPredictor(Single(), predictor.preparation, name='single')
    two, nine = (list(measure(single, samples, make_classification_metrics(), CONDITIONS, batch_size=size))
                 for size in (2, 9))
    for one, other in zip(two, nine, strict=True):
        assert other.value == pytest.approx(one.value, rel=0 if one.metric.endswith('error') else 1e-6, abs=1e-8)


def test_the_seed_matters_to_noise_alone(plain, predictor, samples):
    other = list(measure(predictor, samples, make_classification_metrics(), CONDITIONS, seed=1))
    differing = {one.condition for one, two in zip(plain, other, strict=True) if one.value != two.value}
    assert differing and all('toy_noise' in condition for condition in differing)


def test_image_is_decoded_once_for_all_conditions(predictor, samples, monkeypatch, tmp_path):
    decoded = []
    read = ImageFolderSamples.__getitem__
    monkeypatch.setattr(
        ImageFolderSamples, '__getitem__', lambda self, index: decoded.append(index) or read(self, index))
    measure(predictor, samples, make_classification_metrics(), CONDITIONS)
    assert sorted(decoded) == list(range(40))
    decoded.clear()
    for _ in range(2):
        measure(predictor, CachedSamples(samples, tmp_path), make_classification_metrics(), CONDITIONS)
    assert sorted(decoded) == list(range(40))


def test_a_store_is_filled_once(plain, predictor, samples, tmp_path, monkeypatch):
    store = ResultStore(tmp_path / 'results.jsonl')
    records = measure(predictor, samples, make_classification_metrics(), CONDITIONS, store=tmp_path)
    assert store.records() == plain and records == plain
    before = store.path.read_bytes(), (tmp_path / 'outcomes.jsonl').read_bytes()
    monkeypatch.setattr(loop, 'load_blocks', None)  # nothing is loaded the second time
    again = measure(predictor, samples, make_classification_metrics(), CONDITIONS, store=tmp_path)
    assert (store.path.read_bytes(), (tmp_path / 'outcomes.jsonl').read_bytes()) == before and again == records
    assert len((tmp_path / 'runs.jsonl').read_text().splitlines()) == 1


@pytest.mark.parametrize('count', [1, 5, 17, 20])
def test_recorded_conditions_are_not_measured_again(plain, predictor, samples, tmp_path, count):
    store = ResultStore(tmp_path / 'results.jsonl')
    store.add(*plain[:count])
    measure(predictor, samples, make_classification_metrics(), CONDITIONS, store=tmp_path)
    assert store.records() == plain
    measured = {json.loads(line)['condition'] for line in (tmp_path / 'outcomes.jsonl').read_text().splitlines()}
    assert measured == {str(condition) for condition in CONDITIONS[count // 4:]}


def test_recorded_outcomes_are_not_measured_again(plain, predictor, samples, tmp_path, monkeypatch):
    """A run may be killed between the last outcome and its records."""
    measure(predictor, samples, make_classification_metrics(), CONDITIONS, store=tmp_path)
    (tmp_path / 'results.jsonl').unlink()
    monkeypatch.setattr(ClassifierPredictor, 'predict', None)
    assert measure(predictor, samples, make_classification_metrics(), CONDITIONS, store=tmp_path) == plain


def test_outcomes_are_those_of_each_image(predictor, samples, tmp_path):
    measure(predictor, samples, make_classification_metrics(), CONDITIONS, store=tmp_path, batch_size=16)
    identity = Identity(predictor.name, samples.name, 0, 40)
    outcomes = OutcomeStore(tmp_path).read(identity)
    for index in (0, 17, 39):
        batch = predictor.collate([samples[index]])
        logits = predictor.predict(batch.images, batch).predictions
        assert outcomes['clean'].get_dense('top1_error')[index] == (logits.argmax() != samples.targets[index])
        loss = torch.nn.functional.cross_entropy(logits.double(), torch.tensor([samples.targets[index]]))
        assert outcomes['clean'].get_dense('nll')[index] == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize('length', [16, 40, 100])
def test_blocks_make_no_difference(plain, predictor, samples, tmp_path, monkeypatch, length):
    monkeypatch.setattr(loop, 'BLOCK', length)
    assert measure(predictor, samples, make_classification_metrics(), CONDITIONS, store=tmp_path, batch_size=8) == plain
    lines = (tmp_path / 'outcomes.jsonl').read_text().count('\n')
    assert lines == -(-40 // min(length, 40)) * len(CONDITIONS)


def test_blocks_are_split_where_memory_is_short(plain, predictor, samples, monkeypatch):
    monkeypatch.setattr(data_loading, 'MAX_BYTES', 20 * 3 * toy.SIDE ** 2)
    assert measure(predictor, samples, make_classification_metrics(), CONDITIONS, batch_size=8, workers=1) == plain


def test_unreadable_images_are_named_and_counted(predictor, tmp_path, caplog):
    folder = toy.pictures(tmp_path / 'val')
    broken = [folder / toy.WNIDS[1] / '05.JPEG', folder / toy.WNIDS[2] / '10.JPEG']
    broken[0].write_bytes(broken[0].read_bytes()[:300])
    broken[1].write_bytes(b'')
    samples = load_class_folders(folder, view=predictor.view)
    with pytest.raises(InputError, match=r'2 images are unreadable: n01443537/05.JPEG \(.*\), '
                                         r'n01484850/10.JPEG .*--allow-missing 2'):
        measure(predictor, samples, make_classification_metrics(), CONDITIONS, batch_size=8, allow_missing=1)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        records = measure(predictor, samples, make_classification_metrics(), CONDITIONS, batch_size=8,
                          allow_missing=2, workers=1)
    assert {(record.count, record.unreadable) for record in records} == {(38, 2)}
    assert 'left out: n01443537/05.JPEG' in caplog.text
    assert caplog.text.count('left out: ') == 2  # once each, not under each condition


def test_images_too_small_to_corrupt_are_named(predictor):
    batch = RawBatch(torch.zeros(2, 3, 8, 40, dtype=torch.uint8), (0, 1), ('first', 'second'), (0, 0))
    with pytest.raises(ValueError, match='32 pixels a side or more under a corruption, got 8 x 40 in first; take it'):
        next(apply_corruption(batch, list_conditions(['toy_noise'], [1])[1:], 0))
    assert next(apply_corruption(batch, [CLEAN], 0)) is batch.images


def test_batch_size_auto_halves_when_memory_runs_out(plain, predictor, samples, caplog):
    class Small:
        """Has no room for more than 6 images."""
        name, device = predictor.name, predictor.device
        collate = staticmethod(predictor.collate)

        def predict(self, images, batch, *, trace=False):
            if len(images) > 6:
                raise torch.OutOfMemoryError('CUDA out of memory')
            return predictor.predict(images, batch)
    with caplog.at_level(logging.WARNING):
        records = list(measure(Small(), samples, make_classification_metrics(), CONDITIONS, batch_size='auto'))
    assert records == plain
    assert [record.getMessage() for record in caplog.records] == [
        'memory ran out at batch size 32; continuing with 16', 'memory ran out at batch size 16; continuing with 8',
        'memory ran out at batch size 8; continuing with 4']
    with pytest.raises(torch.OutOfMemoryError):
        list(measure(Small(), samples, make_classification_metrics(), CONDITIONS, batch_size=8))


def test_as_published_is_what_pillow_saves(plain, predictor, samples, tmp_path):
    batch = RawBatch(torch.stack([samples[index].image for index in range(4)]), tuple(range(4)), tuple(samples.ids[:4]))
    raw, saved = (next(apply_corruption(batch, list_conditions(['toy_noise'], [1], **variant)[1:], 0))
                  for variant in ({}, {'jpeg': 85}))
    for image, read in zip(raw, saved, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / 'x.jpg', quality=85, optimize=True)
        assert np.array_equal(np.array(Image.open(tmp_path / 'x.jpg')), read.permute(1, 2, 0).numpy())
    published = list(measure(predictor, samples, make_classification_metrics(),
                             list_conditions(NAMES, SEVERITIES, jpeg=85)))
    assert [record.condition for record in published[4:8]] == ['toy_noise(jpeg=85, severity=1)'] * 4
    assert published[:4] == plain[:4]  # the clean ones are not saved again
    assert all(one.value != two.value for one, two in zip(published, plain, strict=True)
               if one.metric == 'nll' and one.condition != 'clean')


def test_published_folders_are_not_corrupted_again(plain, predictor, samples, folder, tmp_path):
    """toy_dark written to disk as PNG by hand gives what the loop computes."""
    for condition in list_conditions(['toy_dark'], SEVERITIES)[1:]:
        severity = condition.corruption.get('severity')
        for index, id in enumerate(samples.ids):
            path = (tmp_path / 'weather' / 'toy_dark' / str(severity) / id).with_suffix('.png')
            path.parent.mkdir(parents=True, exist_ok=True)
            dark = (samples[index].image.double() * toy.DARK[severity - 1] + 2 ** -11).floor().to(torch.uint8)
            Image.fromarray(dark.permute(1, 2, 0).numpy()).save(path)
    published = load_corruption_folders(tmp_path, ['toy_dark'], SEVERITIES, view=Preprocess(toy.SIDE, None),
                                        clean=samples)
    assert isinstance(published, ImageNetCFolders)
    records = list(measure(predictor, published, make_classification_metrics(),
                           list_conditions(['toy_dark'], SEVERITIES)))
    wanted = [record for record in plain if 'noise' not in record.condition]
    assert [dataclasses.replace(record, dataset=samples.name, data_digest='') for record in records] == wanted
    assert {record.data_digest for record in records} == {published.at(one)[0].files for one in published.conditions}
    assert records[0].dataset == published.name != samples.name


@pytest.mark.parametrize('condition, words', [
    (Condition(Spec.of('toy_noice', severity=1)), "no corruption named 'toy_noice'; did you mean toy_noise"),
    (Condition(Spec.of('toy_noise', severity=6)), 'severity must be in 1..5, got 6 in toy_noise'),
    (Condition(Spec.of('toy_noise')), 'severity must be in 1..5, got None in toy_noise'),
    (Condition(Spec.of('toy_noise', severity=1, mood=2)), 'got mood in toy_noise'),
    (Condition(Spec.of('toy_noise', severity=1, order='rgb')), "expected order='bgr' or none in a corruption, got toy"),
    (Condition(None, Spec.of('pgd')), 'expected a number as epsilon of pgd, got none'),
    (Condition(None, Spec.of('pgdd', epsilon=.1)), "no attack named 'pgdd'; did you mean pgd"),
    (Condition(None, Spec.of('pgd', epsilon=.1, mood=2)), 'as arguments of pgd, got mood'),
    (Condition(None, Spec.of('pgd', epsilon=.1, norm='L3')), "norm is one of Linf, L2, L1 for pgd, got 'L3'"),
    (Condition(None, Spec.of('pgd', epsilon=8)), 'epsilon is 0..1 under Linf, got 8.*write 8/255'),
    (Condition(None, Spec.of('pgd', epsilon='8')), "expected a number as epsilon of pgd, got '8'"),
    (Condition(None, Spec.of('pgd', epsilon=.1, steps='ten')), "expected int as steps of pgd, got 'ten'"),
    (Condition(Spec.of('occlusion', shape='round')), "shape must be one of random, center, got 'round'"),
    (Condition(Spec.of('occlusion', severity=1, share=.5)), 'expected a severity or share, got both'),
])
def test_impossible_conditions_are_refused_before_any_work(predictor, samples, condition, words, monkeypatch):
    monkeypatch.setattr(loop, 'load_blocks', None)
    with pytest.raises(InputError, match=words):
        measure(predictor, samples, make_classification_metrics(), [CLEAN, condition])


def test_severities_share_a_group_in_the_order_given(samples):
    sources, plan = group_conditions(samples, [*CONDITIONS, *list_conditions(['toy_dark'], [2], jpeg=85), CLEAN])
    assert [(group.title, len(group.work)) for group in plan] == [
        ('clean', 1), ('toy_noise', 3), ('toy_dark', 3), ('toy_dark(jpeg=85)', 1)]
    assert sources == [samples] and {group.source for group in plan} == {0}


@pytest.mark.parametrize('options', [{'batch_size': 8}, {'batch_size': 5, 'workers': 1}], ids=str)
def test_images_of_different_sizes_give_what_they_give_one_by_one(tmp_path, predictor, options):
    """Forty of 40 x 48 and six of other sizes, mixed, as they are."""
    folder = toy.pictures(tmp_path / 'val')
    for index, side in enumerate([(60, 60), (33, 47)] * 3):
        Image.effect_noise(side, 90).save(folder / toy.WNIDS[index % 4] / f'{8 * index:02d}z.png')
    samples = load_class_folders(folder, view=Preprocess(None, None))
    assert len({samples[index].image.shape for index in range(16)}) == 3
    singly, mixed = (list(measure(predictor, samples, make_classification_metrics(), CONDITIONS, **how))
                     for how in ({'batch_size': 1}, options))
    assert singly == mixed and {record.count for record in mixed} == {46}


def test_order_bgr_shows_the_corruption_red_and_blue_exchanged(samples):
    batch = RawBatch(torch.stack([samples[index].image for index in range(4)]), tuple(range(4)), tuple(samples.ids[:4]))
    right, wrong = (next(apply_corruption(batch, list_conditions(['toy_noise'], [1], **variant)[1:], 0))
                    for variant in ({}, {'order': 'bgr'}))
    noise = BatchRng(0, batch.ids, purpose='toy_noise').normal(batch.images.shape)
    by_hand = ((batch.images / 255 + .1 * noise.flip(1)) * 255 + 2 ** -11).clamp(0, 255).to(torch.uint8)
    assert (wrong.int() - by_hand.int()).abs().max() <= 1 and not torch.equal(right, wrong)


def fill(folder, store, pause=0., environment=()):
    """What a process of a run does. pause: seconds for which the model sleeps before each batch."""
    os.environ.update(environment)
    predictor = build_classifier(toy.NAME, device=init_distributed('cpu'))
    predictor.model.register_forward_pre_hook(lambda *_: time.sleep(pause))
    measure(predictor, load_class_folders(folder, view=predictor.view), make_classification_metrics(), CONDITIONS,
            store=store.parent, batch_size=8)
    destroy_distributed()


@pytest.mark.parametrize('lines', [0, 1, 10, 25])
def test_killed_and_resumed_run_equals_an_uninterrupted_one(plain, folder, tmp_path, monkeypatch, lines):
    """Send SIGKILL as soon as there are that many lines of outcomes, whatever the process is doing."""
    monkeypatch.setattr(loop, 'BLOCK', 8)
    store, outcomes = tmp_path / 'results.jsonl', tmp_path / 'outcomes.jsonl'
    process = toy.started(fill, folder, store, 0.02)
    deadline = time.monotonic() + 60
    while process.is_alive() and not (outcomes.exists() and outcomes.read_bytes().count(b'\n') >= lines):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.join()
    before = outcomes.read_bytes()
    assert process.exitcode == -signal.SIGKILL and lines <= before.count(b'\n') < 5 * len(CONDITIONS)
    outcomes.write_bytes(before + b'{"key": "0123')  # as if a write had been torn as well
    fill(folder, store)
    assert ResultStore(store).records() == plain
    assert outcomes.read_bytes().startswith(before)
    assert outcomes.read_bytes().count(b'\n') == 5 * len(CONDITIONS)


class Deadly(ImageFolderSamples):
    """Its third image kills whoever reads it."""

    def __getitem__(self, index):
        return os.kill(os.getpid(), signal.SIGKILL) if index == 2 else super().__getitem__(index)


def test_a_killed_worker_gets_one_sentence(predictor, samples):
    deadly = Deadly(samples.root, samples.ids, samples.targets, view=samples.view, name='deadly')
    with pytest.raises(ValueError, match='killed.*--workers'):
        list(measure(predictor, deadly, make_classification_metrics(), [CLEAN], workers=1))
    for options in ({'workers': -1}, {'batch_size': 0}):
        with pytest.raises(ValueError, match='workers must be 0 or more and batch_size 1 or more, got'):
            list(measure(predictor, deadly, make_classification_metrics(), [CLEAN], **options))


def two_ranks():
    """The environments that torchrun gives to two processes."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        meet = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(free.getsockname()[1]), 'WORLD_SIZE': '2'}
    return [meet | {'RANK': str(rank), 'LOCAL_RANK': str(rank)} for rank in range(2)]


def spoken(folder, store, environment, said):
    torch.set_num_threads(1)
    os.environ.update(environment)
    with said.open('w', buffering=1) as sys.stderr, report_errors():
        fill(folder, store)


def test_a_refusal_of_one_rank_is_printed_once(tmp_path):
    """A class that the model does not have lies in the last batch, which is the second rank's."""
    folder = toy.pictures(tmp_path / 'val')
    (folder / 'n02123045').mkdir()
    Image.new('RGB', (48, 40)).save(folder / 'n02123045' / 'z.png')
    said = [tmp_path / f'said{rank}' for rank in range(2)]
    ranks = [multiprocessing.get_context('fork').Process(target=spoken, args=(
        folder, tmp_path / 'results.jsonl', environment, said[rank])) for rank, environment in enumerate(two_ranks())]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(100)
    assert [process.exitcode for process in ranks] == [2, 2]
    assert sorted(path.read_text() for path in said) == [  # the rank that ends first prints
        '', 'labels must be in 0..7, the classes of the model, got 281..281. Pass a model with as many classes as the '
        'data has.\n']


def test_two_ranks_give_what_one_gives(plain, folder, tmp_path):
    """With the environment that torchrun gives to its processes."""
    ranks = [toy.started(fill, folder, tmp_path / 'results.jsonl', 0., environment) for environment in two_ranks()]
    for process in ranks:
        process.join(100)
    assert [process.exitcode for process in ranks] == [0, 0]
    assert ResultStore(tmp_path / 'results.jsonl').records() == plain
    assert len((tmp_path / 'runs.jsonl').read_text().splitlines()) == 1


def test_the_toy_corruptions_are_registered():
    assert {*NAMES} <= set(CORRUPTIONS)


def test_incomplete_outcomes_are_refused(predictor, samples, tmp_path, monkeypatch):
    """No number is computed from a part of the images, whatever stopped the loop."""
    monkeypatch.setattr(Evaluator, '_evaluate_block', lambda self, block, groups, progress: None)
    evaluator = Evaluator(predictor, samples, make_classification_metrics(), [CLEAN], store=Store(tmp_path))
    with pytest.raises(InputError, match=f'{len(samples)} of {len(samples)} images were not evaluated under clean'):
        evaluator.run()
    assert not (tmp_path / 'results.jsonl').exists()


def test_an_image_that_could_not_be_read_once_is_read_again(predictor, samples, tmp_path, monkeypatch):
    """Such as after a failure of a network drive. Its outcomes were stored as unreadable."""
    read = ImageFolderSamples.__getitem__

    def fail(self, index):
        if index == 7:
            raise UnreadableImage(self.ids[index], 'stale handle')
        return read(self, index)
    monkeypatch.setattr(ImageFolderSamples, '__getitem__', fail)
    options = EvaluationOptions(allow_missing=1, workers=0)
    table = Evaluator(predictor, samples, make_classification_metrics(), [CLEAN], store=Store(tmp_path),
                      options=options).run()
    assert {(record.count, record.unreadable) for record in table.records} == {(len(samples) - 1, 1)}
    (tmp_path / 'results.jsonl').unlink()
    monkeypatch.undo()
    table = Evaluator(predictor, samples, make_classification_metrics(), [CLEAN], store=Store(tmp_path)).run()
    assert {(record.count, record.unreadable) for record in table.records} == {(len(samples), 0)}
    other = Evaluator(predictor, samples, make_classification_metrics(), [CLEAN], store=Store(None)).run()
    assert [record.value for record in table.records] == [record.value for record in other.records]
