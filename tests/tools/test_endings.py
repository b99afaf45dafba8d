"""How tools end: signals, places that cannot be written, full disks, and files of another kind."""

import errno
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import pit_downstream.backbones  # noqa: F401  registers them with timm
from pit_downstream.cli.errors import report_errors
from pit_downstream.utils.path_checks import replace_atomically, require_writable_file, write_atomic
from pit_downstream.training import safe_loading as checkpoint
from tests.evaluation import toy

REPO = Path(__file__).parents[2]
MEASURE = ('eval_imagenet_c.py', '--model', toy.FOUR, '--corruptions', 'brightness', '--severities', 1, '--device',
           'cpu', '--batch-size', 4)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return toy.pictures(tmp_path_factory.mktemp('pictures') / 'val', 12)


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / 'cat.png')
    return tmp_path / 'cat.png'


@pytest.fixture
def limited_files():
    """Let files grow to so many bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def full_disk(monkeypatch):
    """Let the disk be full from now on: a network file system reports it when a file is flushed."""
    def fill():
        monkeypatch.setattr('os.fsync', fail)

    def fail(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return fill


def started(tmp_path, *command, ready):
    """A tool in a process group of its own, once the file `ready` is there."""
    process = subprocess.Popen([sys.executable, str(REPO / 'tools' / command[0]), *map(str, command[1:])], cwd=tmp_path,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                               env={**os.environ, 'PYTHONPATH': str(REPO), 'OMP_NUM_THREADS': '1'})
    deadline = time.monotonic() + 120
    while not ready.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    return process


def test_forked_workers_end_at_sigterm_at_once():
    """A Python handler may run too late: a worker about to wait for a lock would wait forever (mmdet's VOC metric)."""
    with report_errors():
        worker = multiprocessing.get_context('fork').Process(target=_has_default_signals)
        worker.start()
        worker.join()
    assert worker.exitcode == 7


def _has_default_signals():
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    sys.exit(7 if handlers == (signal.SIG_DFL, signal.SIG_IGN) else 1)


@pytest.mark.parametrize('number, line', [(signal.SIGINT, 'interrupted'), (signal.SIGTERM, 'terminated')])
def test_a_signal_to_the_group_ends_a_measurement_with_one_line(tmp_path, folder, number, line):
    """Workers, which Ctrl-C reaches as well, print nothing; every record until then is whole."""
    (tmp_path / 'slow.py').write_text(
        'import time\nfrom tests.evaluation import toy\n\ndef build():\n    model = toy.classifier(4)\n'
        "    model.register_forward_pre_hook(lambda *_: (open('ready', 'w').close(), time.sleep(0.2)))\n"
        '    return model\n')
    process = started(tmp_path, *MEASURE, '--model', 'slow:build', '--data', folder, '--output-dir', 'records',
                      '--workers', 2, ready=tmp_path / 'ready')
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + number, f'{line}\n')


@pytest.mark.parametrize('tool, flags, place', [
    ('show_corruptions.py', ['cat.png', '--output', '/proc/x.png'], '/proc'),
    ('analyze_attention.py', ['--model', 'vit_16', '--data', '.', '--output-dir', '/proc/x'], '/proc/x'),
    ('train_patch.py', ['--model', 'retinanet_pit_ti', '--weights', 'random', '--bundled', '--output-dir', '/proc/x'],
     '/proc/x'),
    ('show_detections.py', ['--model', 'retinanet_pit_ti', '--weights', 'random', '--bundled', '--output',
                            '/proc/x.png'], '/proc'),
    ('show_detections.py', ['--model', 'retinanet_pit_ti', '--weights', 'random', '--bundled', '--output', 'x.txt'],
     'x.txt'),
    ('export.py', ['--model', 'pit_ti', '--weights', 'random', '--output', '/proc/x.onnx'], '/proc'),
    ('convert_weights.py', ['none.pth', '--output', '/proc/x.pth'], '/proc'),
    ('make_report.py', ['cat.png', '--output', '/proc/x.html'], '/proc'),
    ('get_complexity.py', ['--model', 'pit_ti', '--json', '/proc/x.json'], '/proc'),
    ('eval_imagenet_c.py', ['--model', toy.FOUR, '--data', '.', '--csv', '/proc/x.csv'], '/proc'),
    ('eval_imagenet_c.py', ['--model', toy.FOUR, '--data', '.', '--output-dir', '/proc/x'], '/proc/x')], ids=str)
def test_places_are_checked_before_the_work(run_tool, picture, tool, flags, place):
    """No file appears, and nothing is read or drawn before."""
    before = set(picture.parent.rglob('*'))
    done = run_tool(tool, *flags)
    assert done.code == 2 and place in done.err and done.err.count('\n') == 1, done.err
    assert set(picture.parent.rglob('*')) - before <= {picture.parent / 'configs'}


@pytest.mark.parametrize('tool, flags', [
    ('train.py', ['--work-dir', '/proc/x']), ('test.py', ['w.pth', '--work-dir', '/proc/x']),
    ('test.py', ['w.pth', '--show-dir', '/proc/x']), ('test.py', ['w.pth', '--out', '/proc/x.pkl']),
    ('train_classifier.py', ['--work-dir', '/proc/x'])], ids=str)
def test_places_of_training_and_testing_are_checked_before_the_work(run_tool, few_shapes, tmp_path, tool, flags):
    (tmp_path / 'w.pth').touch()
    config, data = ('imagenet_pit_s', few_shapes / 'classification') if tool == 'train_classifier.py' else (
        'retinanet_pit_ti', few_shapes)
    bundled = [] if tool == 'train_classifier.py' else ['--bundled', '--cfg-options', 'model.backbone.init_cfg=None']
    done = run_tool(tool, f'configs/{config}.py', *flags, '--data', data, *bundled)
    assert done.code == 2 and '/proc' in done.err.splitlines()[-1] and not (tmp_path / 'work_dirs').exists(), done.err


@pytest.mark.parametrize('flags', [['--csv', '{}'], ['--json', '{}']])
def test_a_full_disk_keeps_the_old_summary(run_tool, folder, tmp_path, full_disk, flags):
    """The measurement itself is in the store, so running it again writes the summary."""
    old = tmp_path / 'old'
    old.write_text('old')
    command = [*MEASURE, '--data', folder, '--output-dir', tmp_path / 'records', '--workers', 0]
    assert run_tool(*command).code == 0
    full_disk()
    done = run_tool(*command, *(flag.format(old) for flag in flags))
    assert done.code == 2 and f'{old}: No space left' in done.err and done.err.count('\n') == 1
    assert old.read_text() == 'old' and not list(tmp_path.glob('.*'))


def test_a_full_disk_during_a_measurement(run_tool, folder, tmp_path, limited_files):
    """What was appended stays; the rest is measured when there is space again."""
    command = [*MEASURE, '--data', folder, '--output-dir', tmp_path / 'records', '--workers', 0]
    limited_files(1000)
    done = run_tool(*command)
    limited_files(resource.RLIM_INFINITY)
    assert done.code == 2 and 'File too large' in done.err and 'Traceback' not in done.err
    assert all(path.read_bytes()[-1:] in (b'', b'\n') for path in (tmp_path / 'records').glob('*.jsonl'))
    assert run_tool(*command).code == 0


@pytest.mark.parametrize('command', [
    ('show_corruptions.py', 'cat.png', '--output', 'old', '--img-size', '32', '--corruptions', 'contrast'),
    ('convert_weights.py', 'w.pth', '--output', 'old', '--model', 'pit_ti'),
    ('get_complexity.py', '--model', 'pit_ti', '--repeats', '0', '--json', 'old')], ids=lambda command: command[0])
def test_a_full_disk_leaves_an_old_file_whole(run_tool, picture, full_disk, command):
    if 'w.pth' in command:
        torch.save(timm.create_model('pit_ti').state_dict(), picture.with_name('w.pth'))
    old = picture.with_name('old')
    old.write_text('old')
    names = {path.name for path in picture.parent.iterdir()}
    full_disk()
    done = run_tool(*command)
    assert done.code == 2 and 'old: No space left' in done.err.splitlines()[-1], done.err
    assert old.read_text() == 'old' and {path.name for path in picture.parent.iterdir()} - names <= {'configs'}


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.ENOENT])
def test_a_refusal_because_of_a_failure_prints_its_own_sentence(run_tool, monkeypatch, number):
    """require_writable_file raises it from the failure of the operating system."""
    monkeypatch.setattr('tempfile.TemporaryDirectory', lambda **_: raised(OSError(number, os.strerror(number))))
    done = run_tool('get_complexity.py', '--model', 'pit_ti', '--json', 'x.json')
    assert done.code == 2 and '--json' in done.err and done.err.count('\n') == 1, done.err


def test_a_failure_of_the_system_is_named_with_its_file(run_tool, picture, monkeypatch):
    monkeypatch.setattr('os.replace', lambda *_: raised(OSError(errno.ENOENT, os.strerror(errno.ENOENT))))
    done = run_tool('show_corruptions.py', picture, '--output', 'x.png', '--img-size', '32', '--corruptions',
                    'contrast')
    assert done.code == 2 and 'x.png: No such file' in done.err and done.err.count('\n') == 1, done.err


def raised(error):
    raise error


def test_checkpoints_of_training_are_written_whole(tmp_path, limited_files):
    from mmengine.runner.checkpoint import save_checkpoint
    checkpoint.register()
    save_checkpoint({'state_dict': {'a': torch.ones(3)}}, str(tmp_path / 'epoch_1.pth'))
    limited_files(5000)
    with pytest.raises(OSError, match='File too large'):
        save_checkpoint({'state_dict': {'a': torch.ones(9000)}}, str(tmp_path / 'epoch_1.pth'))
    limited_files(resource.RLIM_INFINITY)
    assert [path.name for path in tmp_path.iterdir()] == ['epoch_1.pth']
    assert len(checkpoint.load(tmp_path / 'epoch_1.pth')['state_dict']['a']) == 3


def test_a_device_is_written_in_place_and_a_link_stays_one(tmp_path):
    with pytest.raises(OSError, match='No space left') as caught:
        write_atomic('/dev/full', 'text')
    assert caught.value.filename == '/dev/full' and Path('/dev/full').is_char_device()
    write_atomic('/dev/null', 'text')
    (tmp_path / 'target').write_text('old')
    (tmp_path / 'target').chmod(0o640)
    (tmp_path / 'link').symlink_to('target')
    write_atomic(tmp_path / 'link', 'new')
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'target').read_text() == 'new'
    assert (tmp_path / 'target').stat().st_mode & 0o777 == 0o640


def test_a_block_that_fails_leaves_the_old_file(tmp_path):
    (tmp_path / 'x.png').write_text('old')
    with pytest.raises(KeyError), replace_atomically(tmp_path / 'x.png') as new:
        new.write_text('half')
        raise KeyError
    assert (tmp_path / 'x.png').read_text() == 'old' and len(list(tmp_path.iterdir())) == 1
    require_writable_file(tmp_path / 'x.png', '--out')


@pytest.mark.parametrize('content', [
    [torch.ones(2)], {0: torch.ones(2)}, torch.ones(2), 'x' * 999], ids=['list', 'numbers as names', 'tensor', 'text'])
def test_a_checkpoint_that_is_no_dictionary(tmp_path, content):
    torch.save(content, tmp_path / 'w.pth')
    with pytest.raises(ValueError, match='w.pth') as caught:
        checkpoint.load(tmp_path / 'w.pth')
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_a_resumed_checkpoint_executes_no_config(tmp_path):
    """mmengine executes meta.config of a checkpoint when it resumes."""
    from mmengine.runner.checkpoint import CheckpointLoader
    checkpoint.register()
    torch.save({'meta': {'epoch': 1, 'config': "open('ran', 'w')"}, 'state_dict': {'a': torch.ones(1)}},
               tmp_path / 'w.pth')
    assert CheckpointLoader.load_checkpoint(str(tmp_path / 'w.pth'), 'cpu', logger='silent')['meta'] == {'epoch': 1}


def test_a_pipe_in_a_report_folder_is_named_and_left_out(run_tool, tmp_path, folder):
    for name in ('results.jsonl', 'x.json', 'y.png', 'verdicts.jsonl', 'runs.jsonl'):
        os.mkfifo(tmp_path / name)
    assert run_tool(*MEASURE, '--data', folder, '--output-dir', tmp_path / 'records', '--workers', 0).code == 0
    done = run_tool('make_report.py', tmp_path, '--output', 'report.html')
    assert done.code == 0 and (tmp_path / 'report.html').exists()
    done = run_tool('make_report.py', tmp_path / 'x.json', '--output', 'report.html')
    assert done.code == 2 and 'x.json' in done.err and done.err.count('\n') == 1
    assert run_tool(*MEASURE, '--data', folder, '--output-dir', tmp_path).code == 2


SMALL = ('--cfg-options', 'train_dataloader.batch_size=2', 'train_dataloader.num_workers=0',
         'val_dataloader.num_workers=0', 'test_dataloader.num_workers=0', *(
             f'{part}_dataloader.persistent_workers=False' for part in ('train', 'val', 'test')),
         'model.backbone.init_cfg=None')


def is_refused(done, *facts):
    return done.code == 2 and all(fact in done.err.splitlines()[-1] for fact in facts)  # mmengine logs before it


@pytest.mark.parametrize('tool, flags', [
    ('test.py', ['retinanet_pit_ti', 'w.pth']), ('train.py', ['retinanet_pit_ti', '--resume', 'w.pth']),
    ('eval_coco_c.py', ['--model', 'retinanet_pit_ti', '--weights', 'w.pth'])], ids=lambda tool: tool)
def test_a_file_of_a_classifier_for_a_detector(run_tool, few_shapes, tmp_path, tool, flags):
    torch.save({'meta': {'epoch': 1, 'iter': 4}, 'state_dict': timm.create_model('pit_ti').state_dict()},
               tmp_path / 'w.pth')
    options = [*SMALL] if tool != 'eval_coco_c.py' else []
    done = run_tool(tool, *flags, '--bundled', '--data', few_shapes, *options)
    assert is_refused(done, 'w.pth', 'bbox_head'), done.err[-2000:]


@pytest.mark.parametrize('content', [
    {'meta': {'epoch': 1}, 'state_dict': {'backbone.pos_embed': torch.ones(1), 'bbox_head.w': torch.ones(1)}},
    {'network.head.weight': torch.ones(2, 2)}, [torch.ones(1)], {'meta': {'epoch': 1}, 'state_dict': [1]}],
    ids=['detector', 'plain', 'list', 'list inside'])
def test_a_file_of_a_detector_for_a_classifier(run_tool, few_shapes, folder, tmp_path, content):
    torch.save(content, tmp_path / 'w.pth')
    assert is_refused(run_tool('eval_imagenet_c.py', '--model', 'pit_ti', '--weights', 'w.pth', '--data', folder,
                               '--workers', 0, '--device', 'cpu'), 'w.pth')
    options = [*SMALL[:-1], 'model.network.name=pit_ti', 'model.network.img_size=32', 'val_dataloader.batch_size=4']
    done = run_tool('train_classifier.py', 'configs/imagenet_pit_s.py', '--resume', 'w.pth', '--data',
                    few_shapes / 'classification', *options)
    assert is_refused(done, 'w.pth'), done.err[-2000:]


LONG = 'fog' * 3000


@pytest.mark.parametrize('tool, flags', [
    ('eval_imagenet_c.py', ['--model', f'{LONG}(', '--data', 'val']),
    ('eval_imagenet_c.py', ['--model', toy.FOUR, '--data', LONG]),
    ('eval_imagenet_c.py', ['--model', toy.FOUR, '--data', 'val', '--corruptions', LONG]),
    ('eval_imagenet_c.py', ['--model', toy.FOUR, '--data', 'val', '--device', LONG]),
    ('eval_adversarial.py', ['--model', toy.FOUR, '--data', 'val', '--attacks', f'pgd(x={LONG!r})']),
    ('eval_imagenet_c.py', ['--model', toy.FOUR, '--data', 'val', '--output-dir', 'long']),
    ('make_report.py', ['long']), ('train.py', [LONG]), ('show_corruptions.py', [LONG]),
    ('convert_weights.py', ['w.pth', '--output', 'out.pth', '--model', LONG])],
    ids=lambda tool: tool if isinstance(tool, str) else '')
def test_messages_quote_at_most_200_characters(run_tool, folder, tmp_path, tool, flags):
    (tmp_path / 'val').symlink_to(folder)
    (tmp_path / 'long').mkdir()
    (tmp_path / 'long' / 'results.jsonl').write_text(f'{{"model": "{LONG}"}}\n')
    done = run_tool(tool, *flags)
    assert done.code == 2 and 'Traceback' not in done.err
    assert done.err.count('fog') < 150 and len(done.err) < 1500, done.err
