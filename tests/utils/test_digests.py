"""Content digests: they follow the content, whatever the cache holds."""

import hashlib
import os
import sqlite3
import time

import pytest

from pit_downstream.utils import digests


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(digests, '_UNSETTLED', 0.0)


@pytest.fixture
def hashed(monkeypatch):
    """The files that were read."""
    names, original = [], digests._read_and_hash

    def recorded(path, *options):
        names.append(os.path.basename(os.fsdecode(path)))
        return original(path, *options)
    monkeypatch.setattr(digests, '_read_and_hash', recorded)
    return names


def test_digest_is_sha256_of_content(tmp_path):
    (tmp_path / 'a').write_bytes(b'abc')
    assert digests.hash_file(tmp_path / 'a') == hashlib.sha256(b'abc').hexdigest()[:16]


def test_second_call_reads_no_file(tmp_path, hashed):
    for name in 'abc':
        (tmp_path / name).write_text(name)
    first = digests.hash_files([tmp_path / name for name in 'abc'])
    assert sorted(hashed) == ['a', 'b', 'c']
    assert digests.hash_files([tmp_path / name for name in 'cab']) == [first[2], first[0], first[1]]
    assert len(hashed) == 3


def test_exchanged_files_of_equal_size_and_mtime_are_read_again(tmp_path):
    one, other = tmp_path / 'one', tmp_path / 'other'
    for path in (one, other):
        path.write_text(path.name[:3])
        os.utime(path, ns=(10 ** 18, 10 ** 18))
    before = digests.hash_files([one, other])
    one.rename(tmp_path / 'third')
    other.rename(one)
    (tmp_path / 'third').rename(other)
    assert digests.hash_files([one, other]) == before[::-1]


def test_fresh_files_are_not_cached(tmp_path, monkeypatch, hashed):
    monkeypatch.setattr(digests, '_UNSETTLED', 2.0)
    (tmp_path / 'a').write_text('a')
    digests.hash_file(tmp_path / 'a')
    digests.hash_file(tmp_path / 'a')
    assert hashed == ['a', 'a']


@pytest.mark.parametrize('damage', ['not a database', 'a folder'])
def test_damaged_cache_costs_no_result(tmp_path, damage):
    (tmp_path / 'a').write_text('a')
    path = digests.get_cache_path()
    path.parent.mkdir(parents=True)
    path.mkdir() if damage == 'a folder' else path.write_bytes(b'x' * 5000)
    assert digests.hash_file(tmp_path / 'a') == hashlib.sha256(b'a').hexdigest()[:16]


def test_latin1_file_names(tmp_path, hashed):
    path = os.path.join(os.fsencode(tmp_path), b'caf\xe9')
    with open(path, 'wb') as file:
        file.write(b'x')
    for _ in range(2):
        assert digests.hash_file(os.fsdecode(path)) == hashlib.sha256(b'x').hexdigest()[:16]
    assert len(hashed) == 1


def test_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        digests.hash_file(tmp_path / 'none')


def test_fifty_thousand_cached_files_within_five_seconds(tmp_path):
    (tmp_path / 'files').mkdir()
    paths = [str(tmp_path / 'files' / f'{index}') for index in range(50_000)]
    rows = []
    for path in paths:
        with open(path, 'w'):
            pass
        rows.append((os.fsencode(path), *digests._get_fingerprint(os.fsencode(path)), 'f' * 16))
    digests.hash_file(paths[0])  # creates the file
    with sqlite3.connect(digests.get_cache_path()) as cache:
        cache.executemany('INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?)', rows)
    start = time.process_time()
    assert set(digests.hash_files(paths)) == {'f' * 16}
    assert time.process_time() - start < 5


def test_unreadable_files_have_the_word_given_for_them(tmp_path):
    (tmp_path / 'whole').write_text('abc')
    (tmp_path / 'dangling').symlink_to(tmp_path / 'nowhere')
    (tmp_path / 'folder').mkdir()
    names = ['dangling', 'whole', 'folder', 'missing']
    found = digests.hash_files([tmp_path / name for name in names], unreadable='unreadable')
    assert found == ['unreadable', digests.hash_file(tmp_path / 'whole'), 'unreadable', 'unreadable']
    for name in ('dangling', 'folder', 'missing'):
        with pytest.raises(OSError):
            digests.hash_file(tmp_path / name)


def test_long_work_is_reported(tmp_path, monkeypatch, caplog):
    for name in 'abc':
        (tmp_path / name).write_text(name)
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(digests.time, 'monotonic', lambda: next(clock))
    digests.hash_files([tmp_path / name for name in 'abc'])
    assert '1 of 3 done' in caplog.text or '0 of 3 done' in caplog.text
