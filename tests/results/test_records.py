import json
import logging

import pytest

from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.records import MissingMeasurement, Record, ResultStore, Table, parse_record
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import Spec

FOG = Condition(Spec.of('fog', severity=3))


def record(condition='clean', metric='top1_error', value=0.25, **others):
    return Record(**{'model': 'pit_s', 'dataset': 'imagenet', 'condition': str(condition), 'metric': metric,
                     'value': value, 'count': 100, 'seed': 0, **others})


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / 'new' / 'results.jsonl')


def test_records_are_read_as_they_were_added(store):
    assert store.records() == [] and len(store.table('pit_s', 'imagenet')) == 0
    records = [record(benchmark='imagenet_c', data_digest='d' * 16, unreadable=2), record(FOG, value=1 / 3),
               record(metric='entropy', layer='stage2.block4'), record(metric='AP', class_name='dog')]
    store.add(*records[:2])
    store.add(*records[2:])
    assert ResultStore(store.path).records() == records
    assert [json.loads(line) for line in store.path.read_text().splitlines()][1] == {
        'schema': 1, 'model': 'pit_s', 'dataset': 'imagenet', 'condition': 'fog(severity=3)', 'metric': 'top1_error',
        'value': 1 / 3, 'count': 100, 'seed': 0, 'layer': '', 'class_name': '', 'benchmark': '', 'data_digest': '',
        'unreadable': 0}


@pytest.mark.parametrize('schema, shown', [({}, 'an earlier version'), ({'schema': 2}, 'schema 2')])
def test_record_of_another_schema_is_refused(store, schema, shown):
    store.path.parent.mkdir()
    store.path.write_text(json.dumps({**vars(record()), **schema}) + '\n')
    with pytest.raises(InputError, match=rf'line 1 of .*results.jsonl .*{shown}.* reads 1.*--output-dir'):
        store.records()


def test_row_with_an_unknown_key_is_refused():
    with pytest.raises(TypeError, match='recall'):
        parse_record({'schema': 1, **vars(record()), 'recall': .5})
    with pytest.raises(TypeError, match='not an object'):
        parse_record([1, 2])  # type: ignore[arg-type]


def test_a_value_of_another_type_is_refused(store):
    store.path.parent.mkdir()
    store.path.write_text(json.dumps({'schema': 1, **vars(record()), 'value': '0.25'}) + '\n')
    with pytest.raises(InputError, match=r'line 1 of .*results.jsonl .*"value": "0.25"'):
        store.records()


def test_tables_are_of_one_model_dataset_and_seed(store):
    store.add(record(), record(FOG, seed=1), record(FOG, model='pit_b'), record(FOG, dataset='imagenet(limit=10)'))
    assert store.table('pit_s', 'imagenet', seed=0).records == (record(),)
    assert store.table('pit_s', 'imagenet', seed=1).records == (record(FOG, seed=1),)


def test_torn_last_line_is_dropped_and_reported(store, caplog):
    store.add(record(), record(FOG))
    whole = store.path.read_bytes()
    for cut in (1, 2, 40, len(whole.splitlines()[1])):
        store.path.write_bytes(whole[:-cut])  # what a write killed half-way leaves
        with caplog.at_level(logging.WARNING):
            assert store.records() == [record()]
        assert 'dropped a torn last line: ' in caplog.text
        store.add(record(FOG))
        assert store.path.read_bytes() == whole


def test_a_line_broken_in_the_middle_is_an_error(store):
    store.add(record(), record(FOG))
    lines = store.path.read_text().splitlines(keepends=True)
    store.path.write_text('{"schema": 1, "model": 1}\n' + lines[1])
    with pytest.raises(ValueError, match='line 1 of .*results.jsonl'):
        store.records()


def test_what_is_no_number_is_not_stored(store):
    with pytest.raises(ValueError, match='expected a finite number, got nan as nll of pit_s under clean'):
        store.add(record(), record(metric='nll', value=float('nan')))
    assert not store.path.exists()


def test_a_table_answers_by_condition_and_metric(store):
    store.add(record(value=0.5), record(FOG, value=0.75, count=7), record(metric='entropy', value=2., layer='block1'))
    table = store.table('pit_s', 'imagenet')
    assert table[CLEAN, 'top1_error'] == 0.5 and table['fog(severity=3)', 'top1_error'] == 0.75
    assert table[CLEAN, 'entropy', 'block1'] == 2. and (CLEAN, 'entropy') not in table and len(table) == 3
    assert table.record((FOG, 'top1_error')).count == 7


def test_a_gap_is_named_with_the_command_that_fills_it(store):
    store.add(record())
    table = store.table('pit_s', 'imagenet')
    with pytest.raises(MissingMeasurement, match=r'no top1_error of pit_s on imagenet under fog\(severity=3\)$'):
        table[FOG, 'top1_error']
    wanted = [(CLEAN, 'top1_error')] + [(Condition(Spec.of('fog', severity=s)), 'top1_error') for s in range(1, 9)]
    with pytest.raises(MissingMeasurement, match=r'under fog\(severity=1\), .*fog\(severity=6\) and 2 more. '
                                                 r'To measure it: python tools/x.py$') as caught:
        table.require(wanted, command='python tools/x.py')
    assert caught.value.keys == tuple(wanted[1:])


def test_two_values_of_one_thing_are_an_error():
    assert len(Table('pit_s', 'imagenet', [record(), record()])) == 1
    with pytest.raises(ValueError, match='expected one value of top1_error of pit_s on imagenet under clean, '
                                         'got 0.25 .* and 0.5 '):
        Table('pit_s', 'imagenet', [record(), record(value=0.5)])


def test_seeds_do_not_mix(store):
    store.add(record(), record(seed=1, value=0.5))
    assert store.table('pit_s', 'imagenet', seed=1)[CLEAN, 'top1_error'] == 0.5
    with pytest.raises(ValueError, match=r'contains pit_s on imagenet with the seeds \[0, 1\]. Choose one'):
        store.table('pit_s', 'imagenet')
