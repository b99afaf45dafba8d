"""The benchmark scripts in speed/: timing, the table of results, the page generated from it, and their commands."""

import csv
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pit_downstream.evaluation import evaluator
from pit_downstream.metrics.classification import NegativeLogLikelihood, TopError
from pit_downstream.results.outcomes import OutcomeStore
from pit_downstream.results.records import ResultStore
from speed import collapse, run, runner, summary, table
from speed.imagenet_c_overhead import Clock, watch
from speed.table import Comparison, Entry, Run, Spread

CHIP = {'device': 'x86_64', 'cpu': 'A chip', 'torch': '2.0'}
RUN = Run('2026-01-31', 'abc1234', 2, 0.5, CHIP)


def compare(ours, peer, unit='s', **more):
    metric = 'time' if unit == 's' else 'memory'
    return Comparison('Re-attention', 'small', metric, unit, Spread.of(ours), 'the formula', Spread.of(peer), **more)


def test_readme_matches_results_csv():
    assert (table.HERE / 'README.md').read_text() == summary.page(), 'run python -m speed.summary'


def test_committed_table_survives_reading_and_writing(tmp_path):
    table.add_to_table(table.read_table(), tmp_path)
    for name in (table.RESULTS, table.MACHINES):
        assert (tmp_path / name).read_text() == (table.HERE / name).read_text()


def test_committed_ratios_equal_peer_over_ours():
    with (table.HERE / table.RESULTS).open(newline='') as file:
        rows = [row for row in csv.DictReader(file) if row['ratio']]
    assert len(rows) > 50
    for row in rows:
        assert float(row['ratio']) == pytest.approx(float(row['peer_median']) / float(row['ours_median']), rel=1e-4)


def test_every_committed_median_is_within_its_runs():
    spreads = [spread for entry in table.read_table() for spread in (entry.result.ours, entry.result.theirs) if spread]
    assert all(one.minimum <= one.median <= one.maximum and one.runs >= 1 for one in spreads)


def test_losses_are_marked_and_bounds_are_not():
    text = summary.tables(Entry('reattention', result, RUN) for result in (
        compare(2., 1.), compare(.5, 1., 'GiB'), compare(110., 100., bound=True)))
    assert '| 2.00 s | the formula | 1.00 s | 0.50 **loss** | A chip, 2 | abc1234 |' in text
    assert '| memory | 0.500 GiB | the formula | 1.00 GiB | 2.00 | A chip, 2 |' in text
    assert '| 110 s | the formula | 100 s | 0.91 (bound) |' in text
    assert 'Each corruption' not in text and 'training step' not in text


@pytest.mark.parametrize('values, unit, text', [
    ([.0123], 's', '12.3 ms'), ([.45], 's', '0.450 s'), ([422.18], 's', '422 s'), ([5130.9], 's', '5131 s'),
    ([.0439], 'GiB', '0.0439 GiB'), ([.02, .01, .0451], 's', '20.0 ms [10.0, 45.1]'), ([999.7], 's', '1000 s')])
def test_spread_has_three_digits(values, unit, text):
    assert summary.spread(Spread.of(*values), unit) == text


def test_spread_of_runs():
    assert Spread.of(3., 1., 2., 10.) == Spread(2.5, 1., 10., 4)


def test_row_replaces_same_comparison_on_same_device_only(tmp_path):
    gpu = replace(RUN, machine={'device': 'an H200'})
    for ours, where in ((1., RUN), (2., gpu), (3., replace(RUN, commit='def5678'))):
        table.add_to_table([Entry('reattention', compare(ours, 6.), where)], tmp_path)
    table.add_to_table([Entry('padding', compare(4., 6.), RUN)], tmp_path)
    assert [(one.benchmark, one.result.ours.median, one.run) for one in table.read_table(tmp_path)] == [
        ('padding', 4., RUN), ('reattention', 2., gpu), ('reattention', 3., replace(RUN, commit='def5678'))]


def test_rows_without_peer_or_load_are_read_back(tmp_path):
    entry = Entry('x', Comparison('a, b', '', 'loss', '', Spread.of(.25, 1.)), replace(RUN, load=None))
    table.add_to_table([entry], tmp_path)
    assert table.read_table(tmp_path) == [entry] and entry.result.ratio is None


def test_quick_run_adds_rows_elsewhere(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, 'QUICK', tmp_path / 'quick')
    before = (table.HERE / table.RESULTS).read_bytes()
    runner.record('x', [compare(2., 5.)], quick=True)
    (entry,) = table.read_table(tmp_path / 'quick')
    assert entry.result == compare(2., 5.) and {'torch', 'cpu', 'python'} <= entry.run.machine.keys()
    assert (table.HERE / table.RESULTS).read_bytes() == before and 'ratio 2.50' in capsys.readouterr().out
    assert table.QUICK.parts[-2:] == ('work_dirs', 'bench')


def test_sides_warm_up_and_alternate():
    calls = []
    times = runner.time_sides({'a': lambda: calls.append('a'), 'b': lambda: calls.append('b')}, 2)
    assert calls == ['a', 'b', 'a', 'b', 'a', 'b']
    assert {name: len(found) for name, found in times.items()} == {'a': 2, 'b': 2}


def test_collapse_values_are_read_from_the_table():
    measured = collapse.read_values()
    assert measured['trained']['deepvit_16']['accuracy'] == .283
    assert len(measured['untrained']['vit_16']['values']) == 218
    assert '| vit_16, softmax, trained | 0.282 |' in collapse.summary_table(measured)


def test_overhead_times_every_part_of_a_run(monkeypatch):
    for owner, name in ((evaluator, 'apply_corruption'), (evaluator, 'load_blocks'), (TopError, 'measure'),
                        (NegativeLogLikelihood, 'measure'), (OutcomeStore, 'append'), (ResultStore, 'add')):
        monkeypatch.setattr(owner, name, lambda *args: iter((1, 2)))
    clock = Clock(torch.device('cpu'))
    watch(clock, predictor := SimpleNamespace(predict=lambda: 'outputs', collate=lambda: 'batch'))
    assert list(evaluator.apply_corruption('batch')) == [1, 2] and predictor.predict() == 'outputs'
    assert clock.seconds.keys() == {'corruption', 'forward'}


@pytest.mark.parametrize('name', run.SCRIPTS)
def test_every_script_has_a_quick_mode_and_records_its_rows(name):
    text = (table.HERE / f'{name}.py').read_text()
    assert 'bench_parser(__doc__)' in text and 'args.quick' in text and f"record('{name}', " in text
    assert name in summary.ORDER or name == 'training_step'


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
    assert all((table.HERE / f'{name}.py').is_file() for name in run.SCRIPTS)
