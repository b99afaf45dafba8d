"""tools/train.py and tools/test.py from the command line: words, learning, being killed, two processes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pit_downstream.training import safe_loading as checkpoint
from tests.det import scenes, tiny

SMALL = ('--cfg-options', 'train_cfg.max_epochs=2', 'train_dataloader.batch_size=4', 'train_dataloader.num_workers=0',
         'train_dataloader.persistent_workers=False', 'val_dataloader.num_workers=0',
         'val_dataloader.persistent_workers=False', 'default_hooks.logger.interval=1')


def test_missing_coco_is_refused_with_advice(tool):
    done = tool('train.py', 'configs/detr_pit_s.py')
    assert done.returncode == 2 and done.stdout == ''
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith('expected the dataset under data/coco/, did not find data/coco/annotations/instances_t')
    assert '--bundled' in sentence and 'data/README.md' in sentence and 'Traceback' not in done.stderr


@pytest.mark.parametrize('args, words', [
    (('train.py', 'configs/none.py'), "config file not found: 'configs/none.py'"),
    (('test.py', 'configs/retinanet_pit_ti.py', 'none.pth', '--bundled', '--data', 'FEW'),
     'expected a checkpoint, found none at none.pth'),
    (('train.py', 'configs/retinanet_pit_ti.py', '--bundled', '--data', 'FEW', '--cfg-options',
      'model.backbone.arch=xl'), "arch is one of ti, xs, s, b, got 'xl'"),
    (('train.py', 'configs/retinanet_pit_ti.py', '--bundled', '--data', 'FEW', '--cfg-options',
      'model.backbone.init_cfg.type=Pretrained', 'model.backbone.init_cfg.checkpoint=data/weights/none.pth'),
     'expected pretrained weights, found none at data/weights/none.pth; put them there'),
])
def test_bad_input_gets_one_sentence(tool, few_shapes, args, words):
    done = tool(*(few_shapes if arg == 'FEW' else arg for arg in args))
    assert done.returncode == 2 and words in done.stderr and 'Traceback' not in done.stderr


def test_train_then_test_with_images(tool, few_shapes, tmp_path):
    done = tool('train.py', 'configs/retinanet_pit_ti.py', '--bundled', '--data', few_shapes, *SMALL,
                'model.test_cfg.score_thr=0.0')
    assert done.returncode == 0, done.stderr
    summary = done.stdout.strip().splitlines()[-1]
    assert re.fullmatch(r'8 iterations, loss [\d.]+ -> [\d.]+, coco/bbox_mAP [\d.]+, coco/bbox_mAP_50 [\d.]+; '
                        r'checkpoints in .*/work_dirs/retinanet_pit_ti', summary)
    done = tool('test.py', 'configs/retinanet_pit_ti.py', 'work_dirs/retinanet_pit_ti', '--bundled', '--data',
                few_shapes, '--show-dir', 'pictures', '--cfg-options', 'model.test_cfg.score_thr=0.0')
    assert done.returncode == 0, done.stderr
    assert 'coco/bbox_mAP ' in done.stdout.strip().splitlines()[-1]
    assert len(list((tmp_path / 'pictures').glob('*.png'))) == 4


def test_killed_and_resumed(tool, few_shapes, tmp_path):
    """SIGKILL in the second epoch: --resume goes on after the first one's checkpoint and finishes."""
    work = tmp_path / 'work'
    command = ['train.py', 'configs/detr_pit_s.py', '--bundled', '--data', str(few_shapes), '--work-dir', str(work),
               *SMALL, 'train_cfg.val_interval=9', 'train_cfg.max_epochs=3']
    first = subprocess.Popen([sys.executable, str(Path(__file__).parents[2] / 'tools' / command[0]), *command[1:]],
                             cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not _logged(work, 'Epoch(train) [2][1/4]'):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    done = tool(*command, '--resume')
    assert done.returncode == 0, done.stderr
    assert 'resumed epoch: 1, iter: 4' in done.stdout + done.stderr
    assert '12 iterations, loss' in done.stdout.strip().splitlines()[-1]
    assert (work / 'epoch_3.pth').is_file()


def test_a_resumed_run_equals_an_uninterrupted_one(run_tool, tmp_path):
    """Dropout in the model, random sizes and flips in a worker that is meant to persist, and no seed in the config."""
    tiny.training(scenes.coco_folder(tmp_path / 'data'), 'detr', train_dataloader=dict(
        num_workers=1, persistent_workers=True)).dump(tmp_path / 'tiny.py')
    whole = run_tool('train.py', 'tiny.py', '--work-dir', 'whole')
    assert whole.code == 0, whole.err
    resumed = run_tool('train.py', 'tiny.py', '--work-dir', 'resumed', '--resume', 'whole/epoch_1.pth')
    assert resumed.code == 0, resumed.err
    weights = [checkpoint.load(tmp_path / work / 'epoch_2.pth')['state_dict'] for work in ('whole', 'resumed')]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    before = checkpoint.load(tmp_path / 'whole/epoch_1.pth')['state_dict']
    assert not all(torch.equal(value, weights[1][name]) for name, value in before.items())


@pytest.mark.parametrize('lr', ['nan', '1e30'])
def test_a_loss_that_is_not_finite_stops_training_before_its_checkpoint(run_tool, tmp_path, lr):
    tiny.training(scenes.coco_folder(tmp_path / 'data'), 'fcos').dump(tmp_path / 'tiny.py')
    first = run_tool('train.py', 'tiny.py', '--work-dir', 'work', '--cfg-options', 'train_cfg.max_epochs=1')
    assert first.code == 0, first.err
    good = (tmp_path / 'work/epoch_1.pth').read_bytes()
    done = run_tool('train.py', 'tiny.py', '--work-dir', 'work', '--cfg-options', 'load_from=work/epoch_1.pth',
                    f'optim_wrapper.optimizer.lr={lr}')
    assert done.code == 2 and 'loss is not finite' in done.err.lower() and 'Traceback' not in done.err
    assert (tmp_path / 'work/epoch_1.pth').read_bytes() == good and not (tmp_path / 'work/epoch_2.pth').exists()


def test_two_processes_train_as_one_model(tool, few_shapes):
    """DistributedDataParallel over gloo, without find_unused_parameters."""
    done = tool('train.py', 'configs/detr_pit_s.py', '--bundled', '--data', few_shapes, '--launcher', 'pytorch', *SMALL,
                'train_cfg.max_epochs=1',
                start=(sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2'))
    assert done.returncode == 0, done.stderr[-3000:]
    assert '2 iterations, loss' in done.stdout  # 16 images, 4 in each of two processes
    assert 'find_unused_parameters=True' not in done.stdout


def _logged(work, text):
    return any(text in path.read_text() for path in work.rglob('*.log'))
