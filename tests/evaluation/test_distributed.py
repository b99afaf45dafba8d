"""How items are dealt to ranks: each to one of them, and whole batches stay together."""

import pytest
from torch.distributed import HashStore

from pit_downstream.evaluation import distributed
from pit_downstream.evaluation.distributed import FailureFlag


def shares(monkeypatch, count, size, world):
    monkeypatch.setattr(distributed, 'world', lambda: world)
    taken = []
    for rank in range(world):
        monkeypatch.setattr(distributed, 'rank', lambda rank=rank: rank)
        taken.append(distributed.shard_indices(count, size))
    return taken


def test_blocks_go_round():
    assert distributed.shard_indices(5, 2) == [0, 1, 2, 3, 4]


def test_two_ranks_by_hand(monkeypatch):
    assert shares(monkeypatch, 9, 2, 2) == [[0, 1, 4, 5, 8], [2, 3, 6, 7]]
    assert shares(monkeypatch, 5, 1, 2) == [[0, 2, 4], [1, 3]]
    assert shares(monkeypatch, 3, 8, 2) == [[0, 1, 2], []]


@pytest.mark.parametrize('count, size, world', [(87, 4, 2), (40, 8, 3), (5, 5, 4), (1, 3, 2)])
def test_any_number_of_ranks_forms_the_same_batches(monkeypatch, count, size, world):
    whole = {tuple(range(start, min(start + size, count))) for start in range(0, count, size)}
    taken = shares(monkeypatch, count, size, world)
    assert {tuple(share[start:start + size]) for share in taken for start in range(0, len(share), size)} == whole
    assert sorted(index for share in taken for index in share) == list(range(count))


def test_a_failure_flag_does_not_outlive_its_loop(monkeypatch):
    """A later evaluation of the same processes starts with a flag that is not set."""
    store = HashStore()
    monkeypatch.setattr(distributed, '_stores', [store])
    monkeypatch.setattr(distributed, 'is_distributed', lambda: True)
    first = FailureFlag()
    first.set()
    assert first.is_set() and not FailureFlag().is_set()


def test_a_failure_flag_without_other_processes_is_never_set():
    flag = FailureFlag()
    flag.set()
    assert not flag.is_set()
