"""The loop with a detector made by hand: P, mPC and rPC as counted by hand, whatever the batches, workers and ranks."""

import multiprocessing
import os
import socket

import pytest
import torch

import pit_downstream.det  # noqa: F401
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from pit_downstream.benchmarks import coco_c
from pit_downstream.results.condition import CLEAN
from pit_downstream.utils.protocols import Batch, Outputs
from pit_downstream.results.records import ResultStore, Table
from pit_downstream.det.metric import build_metric
from pit_downstream.det.samples import build_detection_samples
from pit_downstream.evaluation import evaluator
from pit_downstream.evaluation.distributed import init_distributed, destroy_distributed
from tests.det import scenes
from tests.evaluation import toy
from tests.evaluation.test_evaluator import measure

# Two cups of three are found, one with an IoU of 0.64, and one bowl of two; see tests/det/test_metric.py
KNOWN = {'11': [(1, 5, 10, 30, 40)], '12': [(0, 0, 0, 32, 32)], '14': [(0, 10, 8, 32, 36)]}
SHARP = ((3 * 67 + 7 * 34) / 1010 + 51 / 101) / 2


class Constant:
    """Finds what KNOWN says, whatever the pixels show. shy: nothing where the image was darkened to a half or less."""

    name, device = 'constant', torch.device('cpu')

    def __init__(self, samples, shy=False):
        self.means = {sample.id: sample.image.float().mean() for sample in (samples[i] for i in range(len(samples)))}
        self.shy, self.largest = shy, 0

    def collate(self, samples, images=None):
        images = torch.stack([sample.image for sample in samples]).float() / 255
        return Batch(images, torch.ones_like(images[:, :1], dtype=torch.bool), tuple(samples))

    def predict(self, images, batch, *, trace=False):
        self.largest = max(self.largest, len(images))
        return Outputs([self._found(image, sample) for image, sample in zip(images, batch.samples, strict=True)])

    def _found(self, image, sample):
        dark = self.shy and image.mean() * 255 < .6 * self.means[sample.id]
        boxes = torch.tensor([] if dark else KNOWN.get(sample.id, []), dtype=torch.float32).view(-1, 5)
        corners = torch.cat([boxes[:, 1:3], boxes[:, 1:3] + boxes[:, 3:]], dim=1)
        found = DetDataSample(metainfo={'img_id': int(sample.id)})
        scores = torch.full((len(boxes),), .9)
        found.pred_instances = InstanceData(bboxes=corners, labels=boxes[:, 0].long(), scores=scores)
        return found


@pytest.fixture(scope='module')
def cfg(tmp_path_factory):
    return scenes.coco_config(scenes.coco_folder(tmp_path_factory.mktemp('coco') / 'data'))


@pytest.fixture
def samples(cfg):
    return build_detection_samples(cfg)


def table_of(records):
    return Table(records[0].model, records[0].dataset, records)


def test_a_constant_detector_keeps_everything(cfg, samples):
    """All 76 conditions on images of three sizes: P = mPC, as counted by hand, and rPC = 1."""
    records = measure(Constant(samples), samples, [build_metric(cfg, samples)], coco_c.list_conditions(), batch_size=2)
    summary = {name: estimate.value for name, estimate in coco_c.summarize(table_of(records)).items()}
    assert [summary['P(AP)'], summary['mPC(AP)']] == pytest.approx([SHARP, SHARP], abs=1e-12)
    assert summary['rPC(AP)'] == pytest.approx(1, abs=1e-12)
    assert summary['mPC(AP50)'] == pytest.approx((67 + 51) / 202, abs=1e-12)
    assert {record.count for record in records} == {5} and len(records) == 76 * 5  # no object of 9216 pixels or more


def test_a_shy_detector_loses_what_is_counted_by_hand(cfg, samples):
    """toy_dark multiplies by .9, .7, .5, .3 and .1: the last three are too dark, so 2 of 5 severities are as clean."""
    records = measure(Constant(samples, shy=True), samples, [build_metric(cfg, samples)],
                      coco_c.list_conditions(['toy_dark']), batch_size=3)
    table = table_of(records)
    assert [table[coco_c.make_condition('toy_dark', severity), 'AP'] > 0 for severity in range(1, 6)] == [1, 1, 0, 0, 0]
    mean = coco_c.compute_mpc(table, 'AP', ['toy_dark'])
    assert mean == pytest.approx(.4 * SHARP, abs=1e-12) and table[CLEAN, 'AP'] == pytest.approx(SHARP, abs=1e-12)


@pytest.mark.parametrize('options', [{'batch_size': 1}, {'batch_size': 5, 'workers': 2}, {'batch_size': 'auto'}],
                         ids=str)
def test_batches_and_workers_make_no_difference(cfg, samples, options):
    conditions = coco_c.list_conditions(['toy_dark', 'fog'], [1, 3])
    plain, other = (measure(Constant(samples, shy=True), samples, [build_metric(cfg, samples)], conditions, **how)
                    for how in ({'batch_size': 2}, options))
    assert plain == other


def test_images_of_one_size_share_a_batch(cfg, samples):
    detector = Constant(samples)
    measure(detector, samples, [build_metric(cfg, samples)], [CLEAN], batch_size=5)
    assert detector.largest == 3


def test_the_second_run_measures_what_is_missing(cfg, samples, tmp_path):
    conditions = coco_c.list_conditions(['toy_dark', 'toy_noise'], [1, 3])
    plain = measure(Constant(samples), samples, [build_metric(cfg, samples)], conditions)
    for count in (1, 4, 5, 12, len(plain)):
        store = ResultStore(tmp_path / str(count) / 'results.jsonl')
        store.add(*plain[:count])
        records = measure(Constant(samples), samples, [build_metric(cfg, samples)], conditions, store=store.path.parent)
        assert {record.key for record in records} == {record.key for record in plain}


def test_stored_detections_give_the_same_numbers(cfg, samples, tmp_path, monkeypatch):
    """As of a run that was killed before its records, and whose last line of one condition was torn."""
    monkeypatch.setattr(evaluator, 'BLOCK', 2)
    conditions = coco_c.list_conditions(['toy_dark'], [1, 3])
    metrics = [build_metric(cfg, samples)]
    plain = measure(Constant(samples, shy=True), samples, metrics, conditions, store=tmp_path, batch_size=2)
    files = sorted((tmp_path / 'detections').glob('*.jsonl'))
    assert len(files) == 3 and all(len(file.read_text().splitlines()) == 3 for file in files)
    (tmp_path / 'results.jsonl').unlink()
    files[1].write_bytes(files[1].read_bytes()[:-30])
    detector = Constant(samples, shy=True)
    assert measure(detector, samples, metrics, conditions, store=tmp_path, batch_size=2) == plain
    assert detector.largest == 1  # the last block, of one image, under one condition


def child(cfg, store, environment):
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    os.environ.update(environment)
    init_distributed('cpu')
    samples = build_detection_samples(cfg)
    measure(Constant(samples, shy=True), samples, [build_metric(cfg, samples)],
            coco_c.list_conditions(['toy_dark', 'fog'], [1, 3]), store=store.parent, batch_size=2)
    destroy_distributed()


def test_two_ranks_give_what_one_gives(cfg, samples, tmp_path):
    """Five images over two ranks: AP is no mean over images, so they exchange what they found."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        meet = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(free.getsockname()[1]), 'WORLD_SIZE': '2'}
    fork = multiprocessing.get_context('fork')
    ranks = [fork.Process(target=child, daemon=True, args=(
        cfg, tmp_path / 'results.jsonl', meet | {'RANK': str(rank), 'LOCAL_RANK': str(rank)})) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(240)
    assert [process.exitcode for process in ranks] == [0, 0]
    assert ResultStore(tmp_path / 'results.jsonl').records() == measure(
        Constant(samples, shy=True), samples, [build_metric(cfg, samples)],
        coco_c.list_conditions(['toy_dark', 'fog'], [1, 3]))


def test_the_toy_corruptions_are_there():
    assert toy.DARK[2:] == (.5, .3, .1)
