"""tools/eval_coco_c.py on a few bundled images: its own and mmdet's configs, against tools/test.py."""

import csv
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import pit_downstream.corruptions  # noqa: F401  registers them, before a test puts the registry back
from pit_downstream.utils.registry import CORRUPTIONS
from pit_downstream.det.config_utils import use_bundled
from pit_downstream.det.predictor import build_detector
from pit_downstream.det.ground_truth import load_coco_tools

REPO = Path(__file__).parents[2]
CONFIG = str(REPO / 'configs' / 'retinanet_pit_ti.py')
LOW = 'model.test_cfg.score_thr=0.0'


@pytest.fixture
def measured(tmp_path, monkeypatch, in_process):
    """measured(tool, *flags) runs a tool in this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.path', sys.path.copy())
    monkeypatch.setattr(CORRUPTIONS, '_entries', CORRUPTIONS._entries.copy())

    return in_process


@pytest.fixture(scope='module')
def weights(few_shapes, tmp_path_factory):
    """A RetinaNet that was shown nothing, but whose anchors lie where objects are often enough for an AP above 0."""
    cfg = Config.fromfile(CONFIG)
    use_bundled(cfg, str(few_shapes))
    path = tmp_path_factory.mktemp('weights') / 'w.pth'
    torch.save({'state_dict': build_detector(cfg, 'random', config='x').model.state_dict()}, path)
    return path


def ap_of(path, ann_file):
    """AP, AP50 ... of predictions that tools/test.py kept, by pycocotools alone."""
    truth = COCO(str(ann_file))
    results = [{'image_id': one['img_id'], 'category_id': truth.getCatIds()[label], 'score': score,
                'bbox': [left, top, right - left, bottom - top]}
               for one in pickle.loads(path.read_bytes()) for found in [one['pred_instances']]
               for label, score, (left, top, right, bottom) in zip(
                   found['labels'].tolist(), found['scores'].tolist(), found['bboxes'].tolist(), strict=True)]
    run = COCOeval(truth, truth.loadRes(results), 'bbox')
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run.stats


def records(path='work_dirs/records'):
    return [json.loads(line) for line in (Path(path) / 'results.jsonl').read_text().splitlines()]


def test_p_is_what_tools_test_finds(measured, weights, few_shapes):
    data = ('--bundled', '--data', few_shapes, '--cfg-options', LOW)
    code, out, said = measured('test.py', CONFIG, weights, *data, '--out', 'kept.pkl')
    assert code == 0, said
    code, out, said = measured('eval_coco_c.py', '--model', CONFIG, '--weights', weights, *data, '--corruptions',
                               'none')
    assert code == 0, said
    stats = ap_of(Path('kept.pkl'), few_shapes / 'annotations/instances_val.json')
    kept = {record['metric']: record['value'] for record in records()}
    assert 0 < kept['AP'] == pytest.approx(stats[0], abs=1e-9)
    assert (kept['AP50'], kept['AP75']) == pytest.approx((stats[1], stats[2]), abs=1e-9)
    lines = out.splitlines()
    assert lines[0].startswith("retinanet_pit_ti(config='") and " on coco(annotations='instances_val.json@" in lines[0]
    assert [line.split()[0] for line in lines[3:]] == ['metric', 'AP', 'AP50', 'AP75', 'AP_small', 'AP_medium']
    assert lines[1] == f'AP by {load_coco_tools()[2]}' and lines[4].split()[1] == f'{stats[0]:.4f}'


def test_a_part_is_measured_saved_and_measured_again(measured, weights, few_shapes, tmp_path):
    """The saved set, read as an ordinary one, gives the AP that the loop gives."""
    few = ('--bundled', '--data', few_shapes, '--cfg-options', LOW)
    flags = ('eval_coco_c.py', '--model', CONFIG, '--weights', weights, *few, '--corruptions', 'fog', 'spatter',
             '--severities', '1', '5',
             '--save-images', 'saved', '--csv', 'out.csv', '--json', 'out.json', '--seed', '2', '--workers', '1')
    code, out, said = measured(*flags)
    assert code == 0, said
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[3:8]] == ['AP', 'clean', 'fog', 'spatter', 'mean']
    assert lines[9].split('  ')[-1] == 'mean of the 4 above'
    assert lines[-1].startswith('no mPC: 73 conditions') and '--corruptions gaussian_noise shot_noise' in lines[-1]
    assert len(list((tmp_path / 'saved').glob('*/*/*.png'))) == 2 * 2 * 4
    rows = list(csv.DictReader(open('out.csv')))
    assert {row['count'] for row in rows} == {'4'} and json.loads(Path('out.json').read_text())['summary'] is None
    wanted = {row['condition']: float(row['value']) for row in rows if row['metric'] == 'AP'}
    before = Path('work_dirs/records/results.jsonl').read_bytes()
    assert measured(*flags)[:2] == (0, out) and Path('work_dirs/records/results.jsonl').read_bytes() == before
    code, _, said = measured('eval_coco_c.py', '--model', CONFIG, '--weights', weights, *few, '--corruptions', 'none',
                             '--data', 'saved/annotations.json', '--images', 'saved/fog/5', '--output-dir', 'again')
    assert code == 0, said
    again = {record['metric']: record['value'] for record in records('again')}
    assert again['AP'] == pytest.approx(wanted['fog(severity=5)'], abs=1e-12)
    assert wanted['clean'] != wanted['spatter(severity=5)']


def test_mmdets_color_order_is_another_condition(measured, weights, few_shapes):
    flags = ('eval_coco_c.py', '--model', CONFIG, '--weights', weights, '--bundled', '--data', few_shapes,
             '--cfg-options', LOW, '--corruptions', 'frost', '--severities', '5', '--limit', '3')
    for more in ((), ('--bgr',)):
        code, out, said = measured(*flags, *more)
        assert code == 0, said
    values = {record['condition']: record['value'] for record in records() if record['metric'] == 'AP'}
    assert set(values) == {'clean', 'frost(severity=5)', "frost(order='bgr', severity=5)"}
    assert values['frost(severity=5)'] != values["frost(order='bgr', severity=5)"]
    assert 'limit=3' in out.splitlines()[0] and '--bgr' in out


@pytest.mark.parametrize('config, smaller', [
    ('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', ('model.backbone.depth=18', 'model.backbone.style=pytorch',
                                                           'model.neck.in_channels=64,128,256,512')),
    ('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', ())])
def test_a_detector_that_is_not_ours(measured, few_shapes, config, smaller):
    code, out, said = measured('eval_coco_c.py', '--model', config, '--weights', 'random', '--bundled', '--data',
                               few_shapes,
                               '--corruptions', 'fog', '--severities', '3', '--limit', '2', '--batch-size', '2',
                               *(('--cfg-options', *smaller) if smaller else ()))
    assert code == 0, said
    assert out.splitlines()[0].startswith(config.split('/')[1].removesuffix('.py') + "(config='")
    assert {record['condition'] for record in records()} == {'clean', 'fog(severity=3)'}
    assert all(np.isfinite(record['value']) for record in records())


def test_bad_input_ends_with_one_sentence(measured, weights, few_shapes, tmp_path):
    own, few = ('--model', CONFIG, '--weights', weights), ('--bundled', '--data', few_shapes)
    for flags, words in (
            (('--model', 'none.py', '--weights', weights), "config file not found: 'none.py'"),
            (('--model', 'pit_s', '--weights', weights), "must be the config of a detector, got 'pit_s'"),
            (('--model', 'imagenet_pit_s', '--weights', weights), 'got the config of a classifier: imagenet_pit_s'),
            (('--model', 'mmdet::fcos/none.py', '--weights', weights), "config file not found: 'mmdet::fcos/none.py'"),
            (('--model', CONFIG, '--weights', 'none.pth', *few), 'expected a checkpoint, found none at none.pth'),
            ((*own, *few, '--cfg-options', 'model.bbox_head.stacked_convs=3'), 'weights of the config in'),
            (own, 'expected the dataset under data/coco/, did not find'),
            ((*own, *few, '--corruptions', 'fogg'), "no corruption named 'fogg'; did you mean fog"),
            ((*own, *few, '--severities', '6'), 'severity must be in 1..5, got 6'),
            ((*own, *few, '--limit', '9'), 'expected a limit in 1..4, the number of images, got 9'),
            ((*own, '--data', 'x.json'), '--data FILE.json --images DIR'),
            ((*own, *few, '--images', '.'), '--data FILE.json --images DIR'),
            (('--model', 'mmdet::pascal_voc/retinanet_r50_fpn_1x_voc0712.py', '--weights', 'random', '--data', 'x.json',
              '--images', '.'), 'whose test_evaluator is one CocoMetric, got VOCMetric. Name the dataset'),
            ((*own, *few, '--device', 'gpu'), 'expected a device like cpu')):
        code, _, said = measured('eval_coco_c.py', *flags)
        assert code == 2 and words in said.strip().splitlines()[-1], said
        assert not (tmp_path / 'work_dirs' / 'records').exists()
