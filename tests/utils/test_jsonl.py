"""JsonLines and ResultStore under several writers, kills, full disks and read-only places."""

import json
import logging
import multiprocessing
import os
import random
import resource
import signal
import threading
import time
from multiprocessing.connection import wait

import pytest

from pit_downstream.utils import jsonl
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.jsonl import JsonLines
from pit_downstream.results.records import SCHEMA, Record, ResultStore

APPENDS = int(os.environ.get('PIT_DOWNSTREAM_APPENDS', 200))  # 2000 for the full test, in about a minute
FORK = multiprocessing.get_context('fork')


def record(value=0.25, metric='nll', count=100, **others):
    return Record(**{'model': 'pit_s', 'dataset': 'imagenet', 'condition': 'clean', 'metric': metric, 'value': value,
                     'count': count, 'seed': 0, **others})


def append_and_confirm(path, writer, start, pipe):
    """Append numbered lines, and report each one that append() has returned from."""
    store = JsonLines(path)
    for number in range(start, start + 10 ** 6):
        store.append([{'id': f'{writer}-{number}', 'text': 'x' * (number % 997)}])
        pipe.send_bytes(str(number).encode())


def test_no_confirmed_line_is_lost_to_kills_of_four_writers(tmp_path):
    """Each writer is killed after a random time and replaced, until `APPENDS` lines are confirmed."""
    path, draw = tmp_path / 'results.jsonl', random.Random(0)
    confirmed, started, kills = [], [0] * 4, 0

    def start(writer):
        """Every life of a writer numbers its lines anew: an unconfirmed line may be in the file or not."""
        receive, send = FORK.Pipe(duplex=False)
        process = FORK.Process(target=append_and_confirm, args=(path, writer, 10 ** 6 * started[writer], send))
        process.start()
        send.close()
        started[writer] += 1
        return process, receive, time.monotonic() + draw.uniform(0.02, 0.6)

    running = [start(writer) for writer in range(4)]
    while len(confirmed) < APPENDS or kills < 8:
        for writer, (process, receive, end) in enumerate(running):
            if time.monotonic() > end:
                process.kill()
                process.join()
                kills += 1
            while receive.poll():  # also what it had confirmed before it was killed
                try:
                    confirmed.append(f'{writer}-{int(receive.recv_bytes())}')
                except EOFError:
                    break
            if process.exitcode is not None:
                assert process.exitcode == -signal.SIGKILL
                receive.close()
                running[writer] = start(writer)
        wait([receive for _, receive, _ in running], timeout=0.02)
    for writer, (process, receive, _) in enumerate(running):
        process.kill()
        process.join()
        while receive.poll():
            try:
                confirmed.append(f'{writer}-{int(receive.recv_bytes())}')
            except EOFError:
                break
    JsonLines(path).append([{'id': 'last'}])  # cuts what the last kill has torn, and finds the lock free
    ids = [json.loads(line)['id'] for line in path.read_bytes().splitlines()]
    print(f'{len(confirmed)} confirmed, {len(ids)} in the file, {kills + 4} kills')
    assert len(set(ids)) == len(ids) and not set(confirmed) - set(ids)


def test_a_reader_sees_whole_lines_while_others_write(tmp_path):
    path = tmp_path / 'results.jsonl'
    receive, send = FORK.Pipe(duplex=False)
    process = FORK.Process(target=append_and_confirm, args=(path, 0, 0, send))
    process.start()
    seen = 0
    while seen < 30:
        found = [json.loads(line)['id'] for line in JsonLines(path).read()]
        assert found == [f'0-{number}' for number in range(len(found))] and len(found) >= seen
        seen = len(found)
    process.kill()
    process.join()


def test_a_held_lock_ends_in_a_clear_error(tmp_path, monkeypatch):
    path = tmp_path / 'results.jsonl'
    monkeypatch.setattr(jsonl, 'PATIENCE', 0.2)
    with JsonLines(path).lock(), pytest.raises(InputError, match=f'{path}.lock'):
        JsonLines(path).append([{'a': 1}])
    JsonLines(path).append([{'a': 1}])
    assert path.read_text() == '{"a": 1}\n'


def test_threads_of_one_process_share_a_store(tmp_path):
    store = JsonLines(tmp_path / 'results.jsonl')
    threads = [threading.Thread(target=lambda: [store.append([{'a': 1}]) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read() == [b'{"a": 1}'] * 40


def test_a_full_disk_keeps_the_lines_and_no_part_of_a_new_one(tmp_path):
    store = JsonLines(tmp_path / 'results.jsonl')
    store.append([{'a': 1}])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        with pytest.raises(OSError, match='File too large') as caught:
            store.append([{'b': 'x' * 200}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(store.path) and store.path.read_text() == '{"a": 1}\n'
    store.append([{'c': 1}])
    assert store.read() == [b'{"a": 1}', b'{"c": 1}']


def test_a_store_is_read_without_permission_to_write(tmp_path):
    """Reading makes no lock file."""
    store = ResultStore(tmp_path / 'results.jsonl')
    store.add(record())
    (tmp_path / 'results.jsonl.lock').unlink()
    assert ResultStore(store.path).records() == [record()]
    assert [path.name for path in tmp_path.iterdir()] == ['results.jsonl']


def test_a_pipe_in_place_of_a_store_is_refused(tmp_path):
    os.mkfifo(tmp_path / 'results.jsonl')
    assert JsonLines(tmp_path / 'results.jsonl').read() == []
    with pytest.raises(ValueError, match='results.jsonl'):
        JsonLines(tmp_path / 'results.jsonl').append([{'a': 1}])


def test_a_second_value_in_the_last_digits_counts_once(tmp_path, caplog):
    """What two runs with different batch sizes have left in one file."""
    rows = [record(), record(0.25 * (1 + 1e-8)), record(0.5, 'top1_error')]
    path = tmp_path / 'results.jsonl'
    path.write_text(''.join(json.dumps({'schema': SCHEMA, **vars(row)}) + '\n' for row in rows))
    with caplog.at_level(logging.WARNING):
        table = ResultStore(path).table('pit_s', 'imagenet')
    assert table.records == (rows[0], rows[2])
    assert '1 numbers' in caplog.text and f'line 2 of {path}' in caplog.text


@pytest.mark.parametrize('other', [record(0.2501), record(count=99), record(0.25 * (1 + 1e-5))])
def test_two_different_values_name_both_lines(tmp_path, other):
    path = tmp_path / 'results.jsonl'
    path.write_text(''.join(json.dumps({'schema': SCHEMA, **vars(row)}) + '\n' for row in (record(), other)))
    with pytest.raises(ValueError, match='got 0.25 ') as caught:
        ResultStore(path).table('pit_s', 'imagenet')
    assert f'line 1 of {path}' in str(caught.value) and f'line 2 of {path}' in str(caught.value)


def test_a_number_that_another_run_has_added_stays(tmp_path, caplog):
    first, second = (ResultStore(tmp_path / 'results.jsonl') for _ in range(2))
    first.add(record())
    with caplog.at_level(logging.WARNING):
        second.add(record())
        assert not caplog.text
        second.add(record(0.3), record(0.5, 'top1_error'))
    assert 'kept 0.25 of 100 samples' in caplog.text and '0.3 of 100' in caplog.text
    assert first.records() == [record(), record(0.5, 'top1_error')]
