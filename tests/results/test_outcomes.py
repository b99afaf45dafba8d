"""Per-image values: resume, duplicates, torn lines, merged files, detections, and a store in memory."""

import json
import logging

import numpy as np
import pytest

from pit_downstream.results.outcomes import Entry, Identity, Outcomes, OutcomeStore
from pit_downstream.utils.errors import InputError

PIT = Identity("pit_s(weights='a.pth@0123456789abcdef')", 'imagenet(images=10)', 0, 10)
FOG = 'fog(severity=3)'


def entry(indices, values, condition='clean', **others):
    return Entry(condition, np.array(indices, dtype=int), {'top1_error': np.array(values, np.uint8)}, **others)


@pytest.fixture(params=['files', 'memory'])
def store(request, tmp_path):
    return OutcomeStore(tmp_path if request.param == 'files' else None)


def test_values_of_blocks_are_in_the_order_of_the_dataset(store):
    store.append(PIT, [entry([4, 5, 7], [1, 0, 1], unreadable=[6], costs={'forwards': 30}, data_digest='d' * 16),
                       entry([0], [1], FOG)])
    store.append(PIT, [entry([0, 1, 2, 3], [0, 0, 1, 1], costs={'forwards': 40, 'backwards': 4})])
    outcomes = store.read(PIT)
    assert list(outcomes) == ['clean', FOG]
    clean = outcomes['clean']
    assert clean.get_values('top1_error').tolist() == [0, 0, 1, 1, 1, 0, 1]
    assert clean.get_values('top1_error').dtype == np.uint8
    assert clean.unreadable.nonzero()[0].tolist() == [6]
    assert clean.costs == {'forwards': 70, 'backwards': 4} and clean.data_digest == 'd' * 16
    assert clean.find_missing(['top1_error']).nonzero()[0].tolist() == [6, 8, 9]
    assert clean.find_missing(['top1_error', 'nll']).nonzero()[0].tolist() == list(range(10))
    assert clean.is_known('top1_error').sum() == 7 and not clean.is_known('nll').any()
    np.testing.assert_array_equal(clean.get_dense('top1_error'), [0, 0, 1, 1, 1, 0, np.nan, 1, np.nan, np.nan])
    assert clean.get_dense('nll') is None and clean.names == ['top1_error']
    assert list(store.read(PIT, [FOG])) == [FOG]


def test_first_value_of_an_image_counts(store):
    """As after a run that was killed between two files, or after two runs at once."""
    store.append(PIT, [entry([0, 1], [0, 1], costs={'forwards': 2})])
    store.append(PIT, [entry([1, 2], [0, 0], costs={'forwards': 2})])
    store.append(PIT, [entry([0, 1], [1, 1], costs={'forwards': 2})])
    clean = store.read(PIT)['clean']
    assert clean.get_values('top1_error').tolist() == [0, 1, 0]
    assert clean.costs == {'forwards': 3}  # by the share of images with a new value


def test_an_image_that_is_read_later_is_not_unreadable(store):
    store.append(PIT, [entry([0, 1], [0, 1], unreadable=[2])])
    store.append(PIT, [entry([2], [1])])
    store.append(PIT, [entry([], [], unreadable=[1, 3])])
    clean = store.read(PIT)['clean']
    assert clean.unreadable.nonzero()[0].tolist() == [3] and clean.is_recorded[:4].all()
    assert clean.get_values('top1_error').tolist() == [0, 1, 1]


def test_models_datasets_and_seeds_do_not_mix(store):
    others = [Identity("pit_s(weights='a.pth@fedcba9876543210')", PIT.dataset, 0, 10),
              Identity(PIT.model, 'imagenet(images=10, limit=5)', 0, 10), Identity(PIT.model, PIT.dataset, 1, 10)]
    for number, identity in enumerate([PIT, *others]):
        store.append(identity, [entry([number], [1])])
    assert [store.read(identity)['clean'].is_known('top1_error').nonzero()[0].tolist()
            for identity in (PIT, *others)] == [[0], [1], [2], [3]]


def test_equal_weights_in_another_file_are_the_same_model(store):
    store.append(PIT, [entry([3], [1])])
    renamed = Identity("pit_s(weights='b.pth@0123456789abcdef')", PIT.dataset, 0, 10)
    assert renamed.key == PIT.key and store.read(renamed)['clean'].get_values('top1_error').tolist() == [1]


@pytest.mark.parametrize('dtype, shape', [(bool, (3,)), (np.float32, (3,)), (np.int64, (3, 2)), (np.float64, (3, 0))])
def test_arrays_are_stored_exactly(store, dtype, shape):
    values = (np.random.default_rng(0).normal(size=shape) * 9).astype(dtype)
    store.append(PIT, [Entry('clean', np.array([1, 4, 9]), {'value': values})])
    stored = store.read(PIT)['clean'].get_values('value')
    assert stored.dtype == dtype
    np.testing.assert_array_equal(stored, values)


def test_torn_last_line_is_measured_again(tmp_path, caplog):
    store = OutcomeStore(tmp_path)
    store.append(PIT, [entry([0], [1])])
    store.append(PIT, [entry([1], [1])])
    path = tmp_path / 'outcomes.jsonl'
    whole = path.read_bytes()
    for cut in (1, 5, 200):
        path.write_bytes(whole[:-cut])
        with caplog.at_level(logging.WARNING):
            assert store.read(PIT)['clean'].find_missing(['top1_error']).nonzero()[0].tolist() == list(range(1, 10))
        assert 'torn last line' in caplog.text
        store.append(PIT, [entry([1], [1])])
        assert path.read_bytes() == whole
        caplog.clear()


def test_files_of_two_machines_can_be_concatenated(tmp_path):
    for number, folder in enumerate(('a', 'b')):
        OutcomeStore(tmp_path / folder).append(PIT, [entry([number, 2], [number, number])])
    (tmp_path / 'outcomes.jsonl').write_bytes(
        b''.join((tmp_path / folder / 'outcomes.jsonl').read_bytes() for folder in 'ab'))
    merged = OutcomeStore(tmp_path)
    assert merged.read(PIT)['clean'].get_values('top1_error').tolist() == [0, 1, 0]
    assert merged.list_identities() == [PIT]


def test_detections_are_in_a_file_per_condition(tmp_path):
    boxes = [{'boxes': np.array([[1.5, 2, 3, 4]], np.float32), 'labels': np.array([7])},
             {'boxes': np.zeros((0, 4), np.float32), 'labels': np.zeros(0, int)}]
    store = OutcomeStore(tmp_path)
    for condition in ('clean', FOG):
        store.append(PIT, [Entry(condition, np.array([2, 5]), {'detections': boxes})])
    names = sorted(path.name for path in (tmp_path / 'detections').glob('*.jsonl'))
    assert len(names) == 2 and not (tmp_path / 'outcomes.jsonl').exists()
    assert all(name.startswith(PIT.key) for name in names) and any('-fog_severity_3-' in name for name in names)
    stored = store.read(PIT, [FOG])[FOG].get_values('detections')
    for given, read in zip(boxes, stored, strict=True):
        for name, values in given.items():
            assert read[name].dtype == values.dtype
            np.testing.assert_array_equal(read[name], values)
    without = store.read(PIT, items=False)[FOG]
    assert without.is_known('detections').nonzero()[0].tolist() == [2, 5]
    assert without.get_values('detections').tolist() == [False, False]


def test_outcomes_in_memory_are_exchanged_between_ranks_once():
    ranks = [OutcomeStore(None), OutcomeStore(None)]

    def exchange() -> list[int]:
        shared: list[list] = [[], []]
        for rank, entries in zip(ranks, shared, strict=True):
            rank.gather(lambda own, entries=entries: entries.extend(own) or own)
        for rank, others in zip(ranks, reversed(shared), strict=True):
            rank._memory.extend(others)
            rank._gathered = len(rank._memory)
        return [len(entries) for entries in shared]
    ranks[0].append(PIT, [entry([0], [1])])
    ranks[1].append(PIT, [entry([1], [0])])
    assert exchange() == [1, 1]
    ranks[0].append(PIT, [entry([2], [1])])
    assert exchange() == [1, 0]  # entries that every rank has are not sent again
    for rank in ranks:
        assert sorted(rank.read(PIT)['clean'].get_values('top1_error').tolist()) == [0, 1, 1]


def test_files_are_shared_without_an_exchange(tmp_path):
    OutcomeStore(tmp_path).gather(lambda _: pytest.fail('nothing is in memory'))


def test_outcomes_of_another_version_are_refused(tmp_path):
    store = OutcomeStore(tmp_path)
    store.append(PIT, [entry([0], [1])])
    path = tmp_path / 'outcomes.jsonl'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'schema': 2}) + '\n')
    with pytest.raises(InputError, match='line 1 of .*outcomes.jsonl .*another version.*--output-dir'):
        store.read(PIT)


@pytest.mark.parametrize('line', ['{"model": 1}', 'text', '[1]'])
def test_broken_line_of_another_model_is_not_skipped(tmp_path, line):
    store = OutcomeStore(tmp_path)
    (tmp_path / 'outcomes.jsonl').write_text(f'{line}\n')
    store.append(PIT, [entry([0], [1])])
    with pytest.raises(InputError, match='line 1 of .*outcomes.jsonl'):
        store.read(PIT)


def test_new_values_of_known_images_extend_an_entry():
    """A metric that is added later."""
    outcomes = Outcomes(3)
    outcomes.add(entry([0, 1, 2], [1, 0, 1], costs={'forwards': 3}))
    outcomes.add(Entry('clean', np.array([0, 2]), {'nll': np.array([.5, 1.5])}, costs={'forwards': 2}))
    assert outcomes.get_values('nll').tolist() == [.5, 1.5] and outcomes.costs == {'forwards': 5}
    assert outcomes.find_missing(['top1_error', 'nll']).tolist() == [False, True, False]
