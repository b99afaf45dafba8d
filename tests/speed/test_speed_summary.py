"""The scripts of benchmarks/: their rows, the table made of them, and what a quick run must not touch."""

import json
import re

import pytest

from speed import environment, rows, run, summary

RAN = {'device': 'x86_64', 'cpu': 'A chip', 'threads': 2, 'commit': 'abc1234'}


def test_the_readme_is_what_the_json_files_say():
    assert (rows.HERE / 'README.md').read_text() == summary.page(), 'run python -m speed.summary'


@pytest.fixture
def folder(tmp_path):
    result = {'mode': 'eval', 'tokens': 10, 'heads': 2, 'head_dim': 4,
              'median_seconds': {'streaming': 2., 'official': 1.}, 'extra_mib': {'streaming': 512., 'official': 1024.}}
    (tmp_path / 'reattention.json').write_text(json.dumps({'results': [result], 'environment': RAN}))
    cost = {'model': 'm', 'samples': 's', 'whole_seconds': 110., 'forward_alone_seconds': 100.}
    (tmp_path / 'imagenet_c_overhead.json').write_text(json.dumps({'results': [cost], 'environment': RAN}))
    return tmp_path


def test_losses_are_marked_and_bounds_are_none(folder):
    text = summary.text_of(folder)
    assert '| 2.00 s | the official formula | 1.00 s | 0.50 **loss** | A chip, 2 | [abc1234](reattention.json)' in text
    assert '| 0.500 GiB | the official formula | 1.00 GiB | 2.00 | A chip, 2 |' in text
    assert '| 110 s | its forward passes alone | 100 s | 0.91 (bound) |' in text
    assert 'Each corruption' not in text


def test_padding_that_leaks_is_a_peer_and_no_bound(tmp_path):
    row = {'sizes': [[8, 8], [8, 4]], 'backward': False, 'median': {'alone': 2., 'masked': 3., 'padded': 1.}}
    (tmp_path / 'padding.json').write_text(json.dumps({'results': [row], 'environment': RAN}))
    text = summary.text_of(tmp_path)
    assert '| padded attention, which leaks | 1.00 s | 0.50 **loss** |' in text and 'bound' not in text


@pytest.mark.parametrize('value, unit, text', [
    (0.0123, 's', '12.3 ms'), (0.45, 's', '0.450 s'), (422.18, 's', '422 s'), (5130.9, 's', '5131 s'),
    (0.0439, 'GiB', '0.0439 GiB')])
def test_numbers_have_three_digits(value, unit, text):
    assert summary.number(value, unit) == text


def test_rows_of_other_devices_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, 'HERE', tmp_path)
    (tmp_path / 'x.json').write_text(json.dumps({'results': [{'a': 1}], 'environment': {'device': 'an H200'}}))
    for value in (2, 3):
        environment.keep('x', [{'a': value}], quick=False, more=4)
    content = json.loads((tmp_path / 'x.json').read_text())
    assert [(row['a'], row['environment']['device']) for row in content['results']] == [
        (3, environment.environment()['device']), (1, 'an H200')]
    assert content['more'] == 4 and {'torch', 'commit', 'threads', 'versions', 'load'} <= content['environment'].keys()


def test_a_quick_run_writes_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, 'QUICK', tmp_path / 'quick')
    before = sorted(rows.HERE.iterdir())
    assert environment.keep('x', [{'a': 1}], quick=True) == tmp_path / 'quick/x.json'
    assert sorted(rows.HERE.iterdir()) == before
    assert rows.QUICK.parts[-2:] == ('work_dirs', 'bench')


def test_turns_warm_up_and_alternate():
    calls = []
    times = environment.in_turns({'a': lambda: calls.append('a'), 'b': lambda: calls.append('b')}, 2)
    assert calls == ['a', 'b', 'a', 'b', 'a', 'b'] and {name: len(found) for name, found in times.items()} == {
        'a': 2, 'b': 2}


@pytest.mark.parametrize('name', run.SCRIPTS)
def test_every_script_has_a_quick_way_and_a_reader(name):
    text = (rows.HERE / f'{name}.py').read_text()
    assert 'bench_parser(__doc__)' in text and 'args.quick' in text and re.search(rf"keep\('{name}', ", text)
    assert name in summary.READERS or name == 'training_step'


def test_commands(monkeypatch):
    def of(name, *flags):
        monkeypatch.setattr('sys.argv', ['run.py', '--threads', '1', *flags])
        return ' '.join(run.command(name, run.parse_args()))
    assert of('pit_speed') == '-m speed.pit_speed --threads 1'
    assert of('imagenet_c_overhead', '--imagenet', 'D') == '-m speed.imagenet_c_overhead --threads 1 --data D'
    assert of('coco_c_speed') == '-m speed.coco_c_bundled --threads 1'
    assert of('coco_c_speed', '--coco-c', 'C', 'W', 'D') == '-m speed.coco_c_speed C W --data D --threads 1'
    assert of('coco_c_speed', '--quick', '--coco-c', 'C', 'W', 'D').startswith('-m speed.coco_c_bundled')
    assert of('attack_speed', '--classifier', 'M', 'W', 'D').endswith('--model M --weights W --data D')
    assert all((rows.HERE / f'{name}.py').is_file() for name in run.SCRIPTS)
