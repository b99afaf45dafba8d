"""What is found and read: each number once, however often its file is named; what cannot be read is said."""

import json
import logging
from dataclasses import replace

import pytest

from pit_downstream.results.condition import Condition
from pit_downstream.results.records import Record, ResultStore
from pit_downstream.report import inputs
from pit_downstream.report.commands import choose_argv, name_source
from pit_downstream.report.data import ReportData
from pit_downstream.report.training import read_log
from pit_downstream.results.labels import label_dataset
from pit_downstream.results.results import COLUMNS, get_image_key, make_row
from pit_downstream.utils.errors import InputError
from tests.report import stores
from tests.report.stores import ALEX, DATA, DETECTOR, HALF


def test_files_count_once(tmp_path):
    store = stores.write_store(tmp_path / 'a', stores.attacked(ALEX))
    copy = stores.write_store(tmp_path / 'b', stores.attacked(ALEX))
    once, often = inputs.read_inputs([store]), inputs.read_inputs([store, tmp_path, store.parent, copy])
    (key,) = once.tables
    assert often.tables.keys() == once.tables.keys() and often.tables[key].records == once.tables[key].records
    assert often.sources[key] == (store, copy)
    for found in (once, often):
        errors = found.readers[key](Condition.parse(stores.FGSM.format('4/255')), stores.ERROR)
        assert errors.tolist() == [0] * 5 + [1] * 5
        assert found.readers[key](Condition.parse('clean'), stores.ERROR) is None


def test_two_values_of_one_number_are_refused(tmp_path):
    first = stores.write_store(tmp_path / 'a', stores.corrupted(ALEX))
    second = stores.write_store(tmp_path / 'b', stores.corrupted(ALEX, .5))
    with pytest.raises(ValueError, match='expected one value of top1_error of alex .* under clean, got 0.4348 .*'
                                         f'{first}.* and 0.2174 .*{second}'):
        inputs.read_inputs([tmp_path])


def test_nothing_to_report(tmp_path):
    (tmp_path / 'results.jsonl').touch()
    (tmp_path / 'notes.json').write_text('{"a": 1}')
    for paths in ([tmp_path], [tmp_path / 'results.jsonl'], []):
        with pytest.raises(ValueError, match='no records, logs, speed results or images in .*Pass results.jsonl'):
            inputs.read_inputs(paths)
    with pytest.raises(InputError, match=r'no results, logs or folders of them: .*results\*.jsonl'):
        inputs.read_inputs([tmp_path / 'results*.jsonl'])


def test_unreadable_input_is_reported(tmp_path, caplog):
    store = stores.write_store(tmp_path, stores.corrupted(ALEX))
    with store.open('a') as file:
        file.write('{"torn": ')
    with caplog.at_level(logging.WARNING):
        assert len(next(iter(inputs.read_inputs([store]).tables.values()))) == 76
    assert 'dropped a torn last line' in caplog.text
    (tmp_path / 'outcomes.jsonl').write_text('{"model": 1}\n')
    with pytest.raises(InputError, match='line 1 of .*outcomes.jsonl has outcomes of another version'):
        inputs.read_inputs([store])
    (tmp_path / 'bad.json').write_text('{')
    with pytest.raises(ValueError, match='no JSON in .*bad.json'):
        inputs.read_inputs([tmp_path / 'bad.json'])
    row = {**make_row(stores.corrupted(ALEX)[0]), 'value': 'high'}
    (tmp_path / 'bad.json').write_text(json.dumps({'records': [row]}))
    with pytest.raises(ValueError, match="numbers in .*bad.json: expected .*float.* as value, got 'high'"):
        inputs.read_inputs([tmp_path / 'bad.json'])


def test_summaries_hold_records_too(tmp_path):
    """What --json of a tool wrote, alone or several in one file."""
    rows = [make_row(record) for record in stores.corrupted(ALEX)]
    assert tuple(rows[0]) == COLUMNS
    (tmp_path / 'c.json').write_text(json.dumps({'several': [{'benchmark': 'imagenet_c', 'records': rows}]}))
    (table,) = inputs.read_inputs([tmp_path]).tables.values()
    assert [replace(record, data_digest='') for record in table.records] == stores.corrupted(ALEX)
    (tmp_path / 'c.json').write_text(json.dumps({'records': [{**rows[0], 'schema': 0}]}))
    with pytest.raises(InputError, match='no records of numbers in .*c.json: schema 0, this version reads 1'):
        inputs.read_inputs([tmp_path])


def test_hidden_folders_and_own_figures_are_passed_over(tmp_path):
    for name in ('.cache', 'figures', 'shown'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'x.png').write_bytes(stores.png())
    found = inputs.read_inputs([tmp_path], exclude=[tmp_path / 'figures'])
    assert list(found.images) == [tmp_path / 'shown']


def test_a_resumed_run_replaces_what_it_did_again(tmp_path):
    """Stopped after step 6, gone on from step 5 with another loss."""
    stores.write_log(tmp_path, range(1, 7))
    stores.write_log(tmp_path, range(5, 9), started='20260103_000000', loss=20.)
    files = inputs.read_inputs([tmp_path]).logs[tmp_path]
    found = read_log(tmp_path, files)
    assert found.x == 'epoch' and found.steps == 8 and found.seconds == .5
    assert [round(step * 2) for step, _ in found.losses] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [loss for _, loss in found.losses[3:6]] == [10 / 4, 20 / 5, 20 / 6]
    assert found.scores == {'coco/bbox_mAP': ((1, .02), (2, .04), (3, .06), (4, .08))}


def test_a_log_by_iterations(tmp_path):
    path = stores.write_log(tmp_path, [1])
    path.write_text('{"loss": 2.0, "iter": 10, "step": 10}\n{"top1": 0.5, "step": 20}\n{"loss": 1.0, "step": 20}\n'
                    'not JSON\n')
    found = read_log(tmp_path, [path])
    assert (found.x, found.losses, found.scores) == ('iteration', ((10, 2.), (20, 1.)), {'top1': ((20, .5),)})
    path.write_text('')
    assert read_log(tmp_path, [path]) is None


def get_command(found, model, tool):
    """Return the command of a tool on a model, as a list without the program."""
    entry = next(entry for entry in ReportData(found).entries if entry.model == model)
    return ' '.join(choose_argv(found.runs, entry, tool)).removeprefix('pit-downstream ')


def test_commands_are_those_of_the_last_run(tmp_path):
    argv = ('/somewhere/tools/eval_imagenet_c.py', '--weights=w/half.pth', '--model', 'half', '--data', 'a/b',
            '--precision', 'bf16', '--jpeg-quality', '85', '--csv', 'x.csv')
    other = HALF.replace('0123abcd', '9876abcd')  # of other weights than the run had
    found = inputs.read_inputs([stores.write_store(
        tmp_path, [*stores.corrupted(HALF), *stores.corrupted(other)], *argv, model=HALF)])
    assert get_command(found, HALF, 'eval-imagenet-c') == (
        'eval-imagenet-c --weights w/half.pth --model half --data a/b --precision bf16 --jpeg-quality 85')
    assert get_command(found, HALF, 'eval-adversarial') == (
        'eval-adversarial --weights w/half.pth --model half --data a/b')
    assert get_command(found, HALF, 'evaluate --benchmark mine') == (
        'evaluate --benchmark mine --weights w/half.pth --model half --data a/b')
    assert get_command(found, HALF, 'analyze-attention') == (
        'analyze-attention --weights w/half.pth --model half --data a/b --output-dir DIR')
    assert name_source(found.runs, ReportData(found).entries[0], HALF) == "half(weights='w/half.pth')"
    assert name_source(found.runs, None, other) == "half(weights='FILE')"
    assert get_command(found, other, 'eval-shifts') == 'eval-shifts --model half --weights FILE'


def test_runs_on_the_same_dataset_come_first(tmp_path):
    """Of two runs, that on the dataset counts, though it is of another tool and the older one."""
    small = DATA.replace('1000', '10')
    stores.write_store(tmp_path, stores.corrupted(HALF), 'pit-downstream eval-imagenet-c', '--model', 'half', '--data',
                       'a', dataset=DATA)
    stores.write_store(tmp_path, [Record(HALF, small, 'clean', stores.ERROR, .5, 10, 0)],
                       'pit-downstream eval-adversarial', '--model', 'half', '--data', 'b', '--attacks', 'fgsm')
    found = inputs.read_inputs([tmp_path])
    first, second = ReportData(found).entries
    assert choose_argv(found.runs, first, 'eval-adversarial')[3:] == ['--data', 'a']
    assert choose_argv(found.runs, second, 'eval-adversarial')[3:] == ['--data', 'b']


def test_commands_of_a_custom_benchmark_keep_its_flags(tmp_path):
    argv = ('pit-downstream evaluate', '--benchmark', 'mine', '--import', 'my_module', '--model', 'half', '--levels',
            '1', '2', '--json', 'x.json')
    found = inputs.read_inputs([stores.write_store(tmp_path, stores.corrupted(HALF), *argv, benchmark='mine')])
    assert get_command(found, HALF, 'evaluate --benchmark mine') == (
        'evaluate --benchmark mine --import my_module --model half --levels 1 2')
    assert get_command(found, HALF, 'evaluate --benchmark other') == 'evaluate --benchmark other --model half'


def test_commands_of_a_detector(tmp_path):
    argv = ('pit-downstream eval-adversarial', '--bundled', '--model', 'configs/retina.py', '--weights', 'w.pth',
            '--attacks', 'fgsm', '--precision', 'bf16')
    found = inputs.read_inputs([stores.write_store(tmp_path, stores.detected(), *argv)])
    assert get_command(found, DETECTOR, 'eval-coco-c') == (
        'eval-coco-c --bundled --model configs/retina.py --weights w.pth')
    assert get_command(found, DETECTOR, 'eval-adversarial') == (
        'eval-adversarial --bundled --model configs/retina.py --weights w.pth --precision bf16')
    (tmp_path / 'runs.jsonl').unlink()
    assert get_command(inputs.read_inputs([tmp_path]), DETECTOR, 'eval-adversarial') == (
        'eval-adversarial --model configs/retina.py --weights CHECKPOINT')


def test_names():
    assert get_image_key(DATA) == get_image_key(DATA.replace('224', '64')) != get_image_key(DATA.replace('d1', 'd2'))
    assert label_dataset(DATA) == 'imagenet_c, 1000 images'
    assert label_dataset("coco(annotations='instances_val.json@abcd', images=150, limit=8)") == (
        'coco instances_val, 8 of 150 images')
    assert label_dataset('imagenet_sample') == 'imagenet_sample'


def test_an_own_store_stays_as_it_was(tmp_path):
    store = stores.write_store(tmp_path, stores.corrupted(ALEX))
    before = store.read_bytes()
    inputs.read_inputs([store])
    assert store.read_bytes() == before and len(ResultStore(store).records()) == 76


def test_two_datasets_of_one_annotation_file_have_two_labels(tmp_path):
    datasets = [f"coco(annotations='val.json@abcd', files='{files}', images=8)" for files in ('d1', 'd2')]
    records = [Record(DETECTOR, dataset, 'clean', 'AP', .5, 8, 0) for dataset in datasets]
    data = ReportData(inputs.read_inputs([stores.write_store(tmp_path, records)]))
    groups = list(data.group_by_images(lambda entry: True))
    assert [group.name for group in groups] == ['coco val, 8 images, files d1', 'coco val, 8 images, files d2']


def test_one_model_on_two_views_has_two_labels(tmp_path):
    small = DATA.replace('224', '64')
    store = stores.write_store(tmp_path, [*stores.corrupted(ALEX), *stores.corrupted(ALEX, .5, data=small)])
    data = ReportData(inputs.read_inputs([store]))
    assert [entry.label for entry in data.entries] == ['alex, size=224', 'alex, size=64']
    (group,) = data.group_by_images(lambda entry: True)
    assert group.name == 'imagenet_c, 1000 images' and len(group.entries) == 2
