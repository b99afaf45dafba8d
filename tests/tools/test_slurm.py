"""Slurm: which processes are ranks of one run, what slurm_train.sh starts, and tools under an srun."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pit_downstream.results.records import ResultStore
from pit_downstream.evaluation import distributed
from pit_downstream.utils.slurm import get_step_env, parse_first_node
from tests.evaluation import toy

REPO = Path(__file__).parents[2]
SRUN = [sys.executable, str(Path(__file__).with_name('fake_srun.py')), '2']
STEP = {'SLURM_JOB_ID': '71', 'SLURM_STEP_ID': '2', 'SLURM_PROCID': '5', 'SLURM_NTASKS': '8', 'SLURM_LOCALID': '1',
        'SLURM_STEP_NUM_TASKS': '8', 'SLURM_STEP_NUM_NODES': '2', 'SLURM_STEP_NODELIST': 'gpu[003-004]'}
BATCH = {'SLURM_JOB_ID': '71', 'SLURM_PROCID': '0', 'SLURM_NTASKS': '8', 'SLURM_LOCALID': '0',
         'SLURM_JOB_NODELIST': 'gpu[003-004]'}  # in a batch script and in a shell of salloc


def measure(run_tool, folder, store, *flags, **how):
    return run_tool('eval_imagenet_c.py', '--model', toy.FOUR, '--data', folder, '--output-dir', store, '--corruptions',
                    'brightness', '--severities', 1, '--batch-size', 4, '--workers', 0, '--device', 'cpu', *flags,
                    env={'PYTHONPATH': str(REPO), 'OMP_NUM_THREADS': '1', 'TMPDIR': str(store.parent)}, **how)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return toy.pictures(tmp_path_factory.mktemp('pictures') / 'val', 14)


def test_tasks_of_srun_share_the_work(run_tool, folder, tmp_path):
    """The same records as of one process, each once, and one table."""
    alone = measure(run_tool, folder, tmp_path / 'one')
    shared = measure(run_tool, folder, tmp_path / 'two', start=SRUN)
    assert alone.code == shared.code == 0, shared.err
    assert alone.out.replace(str(tmp_path / 'one'), str(tmp_path / 'two')) == shared.out
    one, two = (ResultStore(tmp_path / name / 'results.jsonl').records() for name in ('one', 'two'))
    assert one == two and len(one) == len({record.identity for record in one})
    runs = (tmp_path / 'two' / 'runs.jsonl').read_text()
    assert runs.count('\n') == 1


@pytest.mark.parametrize('order', ['01', '10'])
def test_bad_input_in_tasks_of_srun_is_reported_once(run_tool, tmp_path, monkeypatch, order):
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    first, second = (run_tool('eval_imagenet_c.py', '--model', toy.FOUR, '--data', 'nowhere',
                              env=STEP | {'SLURM_PROCID': rank}) for rank in order)
    assert first.code == second.code == 2
    assert 'nowhere' in first.err and first.err.count('\n') == 1 and second.err == ''


def test_a_fault_on_another_rank_than_the_first_is_reported(run_tool, folder, tmp_path):
    """The first rank loses its connection, and prints nothing."""
    (tmp_path / 'odd.py').write_text("import os\nfrom tests.evaluation import toy\n\n\ndef build():\n"
                                     "    return None if os.environ['RANK'] == '1' else toy.classifier(4)\n")
    done = measure(run_tool, folder, tmp_path / 'records', '--model', 'odd:build', start=SRUN)
    assert done.code == 2 and 'odd:build' in done.err and done.err.count('\n') == 1, done.err


def test_tasks_of_srun_get_what_torchrun_would_give_them():
    found = get_step_env(STEP)
    assert {key: found[key] for key in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR')} == {
        'RANK': '5', 'WORLD_SIZE': '8', 'LOCAL_RANK': '1', 'MASTER_ADDR': 'gpu003'}
    ports = {int(get_step_env(STEP | {'SLURM_JOB_ID': job, 'SLURM_STEP_ID': step})['MASTER_PORT'])
             for job in ('71', '72', '4000000') for step in ('0', '1')}
    assert len(ports) == 6 and min(ports) >= 1024 and max(ports) < 32768
    assert get_step_env(STEP | {'MASTER_ADDR': 'ib0', 'MASTER_PORT': '5'})['MASTER_ADDR'] == 'ib0'


@pytest.mark.parametrize('env', [
    {}, BATCH, STEP | {'SLURM_STEP_NUM_TASKS': '1', 'SLURM_PROCID': '0'}, STEP | {'RANK': '0', 'WORLD_SIZE': '2'}],
    ids=['no Slurm', 'batch script', 'srun --pty bash', 'torchrun in srun'])
def test_other_processes_in_a_job_are_no_tasks(env):
    assert get_step_env(env) == {}


@pytest.mark.parametrize('nodes, first', [
    ('gpu003', 'gpu003'), ('gpu[003-005,7],login1', 'gpu003'), ('a-1,b[2-3]', 'a-1'), ('r[1-2]n[05,7]', 'r1n05')])
def test_first_node(nodes, first):
    assert parse_first_node(nodes) == first


def free_port():
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return str(found.getsockname()[1])


def results(processes, queue):
    """What each process puts into the queue; a process that fails or hangs fails the test."""
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        process.kill()
    assert [process.exitcode for process in processes] == [0] * len(processes)
    return [queue.get() for _ in processes]


def two_processes(env, gpus, queue):
    """A rank on a machine with so many GPUs, of which torch sees those in `gpus`."""
    os.environ.update(env)
    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: len(gpus)
    torch.cuda.get_device_properties = lambda index: type('Properties', (), {'uuid': gpus[index]})
    try:
        distributed.rank_env(gpus=True)
        queue.put((env['SLURM_PROCID'], os.environ['LOCAL_RANK']))
    except ValueError as error:
        queue.put((env['SLURM_PROCID'], str(error)))


@pytest.mark.parametrize('seen, expected', [
    ((['a', 'b'], ['a', 'b']), ['0', '1']),
    ((['a'], ['b']), ['0', '0']),  # srun --gpus-per-task=1: each task sees its own
    ((['a'], ['a']), '2 processes on GPU a')], ids=['two GPUs', 'a GPU bound to each task', 'one GPU'])
def test_every_rank_has_a_gpu_for_itself(seen, expected):
    context = torch.multiprocessing.get_context('fork')
    queue = context.SimpleQueue()
    step = STEP | {'SLURM_STEP_NUM_TASKS': '2', 'SLURM_STEP_NUM_NODES': '1', 'MASTER_PORT': free_port()}
    processes = [context.Process(target=two_processes, args=(
        step | {'SLURM_PROCID': str(rank), 'SLURM_LOCALID': str(rank)}, seen[rank], queue)) for rank in range(2)]
    found = dict(results(processes, queue))
    if isinstance(expected, list):
        assert [found['0'], found['1']] == expected
    else:
        assert all(expected in text for text in found.values())


def test_a_named_gpu_is_the_current_one(monkeypatch):
    current = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'set_device', current.append)
    assert distributed.init_distributed('cuda:1') == torch.device('cuda', 1) and current == [torch.device('cuda', 1)]
    for name, value in {'RANK': '0', 'WORLD_SIZE': '2'}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match='cuda:1'):
        distributed.init_distributed('cuda:1')


@pytest.fixture
def slurm_train(tmp_path):
    """Run slurm_train.sh with an srun that prints its arguments."""
    srun = tmp_path / 'bin' / 'srun'
    srun.parent.mkdir()
    srun.write_text('#!/bin/sh\necho "$@"\n')
    srun.chmod(srun.stat().st_mode | stat.S_IXUSR)

    def run(*args, **env):
        return subprocess.run(['bash', str(REPO / 'tools' / 'slurm_train.sh'), *args], capture_output=True, text=True,
                              env={**os.environ, 'PATH': f'{srun.parent}:{os.environ["PATH"]}', **env})
    return run


@pytest.mark.parametrize('more, env, tasks, end', [
    ([], {}, 8, '--resume auto'), (['16'], {}, 16, '--resume auto'), ([], {'GPUS': '2'}, 2, '--resume auto'),
    (['4', '--amp', 'bf16'], {'GPUS': '2'}, 4, '--resume auto --amp bf16'),
    (['--resume', 'x.pth'], {}, 8, '--resume auto --resume x.pth')], ids=str)
def test_slurm_train_takes_gpus_and_flags(slurm_train, more, env, tasks, end):
    done = slurm_train('part', 'job', 'configs/detr_pit_s.py', 'work', *more, **env)
    assert done.returncode == 0, done.stderr
    assert f'--ntasks {tasks} --ntasks-per-node {min(tasks, 8)} ' in done.stdout
    assert done.stdout.endswith(f'tools/train.py configs/detr_pit_s.py --work-dir work --launcher slurm {end}\n')


@pytest.mark.parametrize('args, env', [
    (['part', 'job', 'x.py'], {}), (['part', 'job', 'x.py', 'work', 'eight'], {}),
    (['part', 'job', 'x.py', 'work', '0'], {}), (['part', 'job', 'x.py', 'work', '8', '9'], {}),
    (['part', 'job', 'x.py', 'work'], {'GPUS': 'all'})], ids=str)
def test_slurm_train_refuses_other_arguments(slurm_train, args, env):
    done = slurm_train(*args, **env)
    assert done.returncode == 2 and 'PARTITION JOB_NAME CONFIG WORK_DIR' in done.stderr and not done.stdout


def join(env, queue):
    from mmengine.config import Config

    from pit_downstream.training.launch import join_processes
    os.environ.update(env)
    cfg = Config({'launcher': 'slurm'})
    join_processes(cfg)
    queue.put((distributed.rank(), distributed.world(), cfg.launcher))
    distributed.destroy_distributed()


@pytest.mark.parametrize('tasks, expected', [(2, [(0, 2, 'slurm'), (1, 2, 'slurm')]), (1, [(0, 1, 'none')])])
def test_training_joins_the_tasks_of_srun(tasks, expected):
    """Over gloo, without a GPU; one task trains as one process."""
    context = torch.multiprocessing.get_context('fork')
    queue = context.SimpleQueue()
    step = STEP | {'SLURM_STEP_NUM_TASKS': str(tasks), 'SLURM_STEP_NUM_NODES': '1', 'MASTER_PORT': free_port()}
    processes = [context.Process(target=join, args=(
        step | {'SLURM_PROCID': str(rank), 'SLURM_LOCALID': str(rank)}, queue)) for rank in range(tasks)]
    assert sorted(results(processes, queue)) == expected


def test_a_training_outside_of_slurm_is_no_task():
    from mmengine.config import Config

    from pit_downstream.training.launch import join_processes
    with pytest.raises(ValueError, match='SLURM_PROCID'):
        join_processes(Config({'launcher': 'slurm'}))
