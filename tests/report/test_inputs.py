"""What is found and read: each number once, however often its file is named; what cannot be read is said."""

import json
import logging

import pytest

from pit_downstream.results.records import Record, ResultStore
from pit_downstream.report import inputs
from pit_downstream.report import training_section as training
from pit_downstream.report.commands import as_source, attention_command, classifier_command, detector_command, flags
from pit_downstream.report.measured import Measured
from pit_downstream.report.names import dataset_label, get_image_key
from pit_downstream.report.training_section import read_log
from pit_downstream.utils.errors import InputError
from tests.report import stores
from tests.report.stores import ALEX, DATA, DETECTOR, HALF


def test_files_count_once(tmp_path):
    store = stores.write_store(tmp_path / 'a', stores.attacked(ALEX))
    copy = stores.write_store(tmp_path / 'b', stores.attacked(ALEX))
    once, often = inputs.read([store]), inputs.read([store, tmp_path, store.parent, copy])
    (key,) = once.tables
    assert often.tables.keys() == once.tables.keys() and often.tables[key].records == once.tables[key].records
    assert once.verdicts == often.verdicts and often.sources[key] == (store, copy)
    assert sum(once.verdicts[key][stores.FGSM.format('4/255')].values()) == 5


def test_two_values_of_one_number_are_refused(tmp_path):
    first = stores.write_store(tmp_path / 'a', stores.corrupted(ALEX))
    second = stores.write_store(tmp_path / 'b', stores.corrupted(ALEX, .5))
    with pytest.raises(ValueError, match='expected one value of top1_error of alex .* under clean, got 0.4348 .*'
                                         f'{first}.* and 0.2174 .*{second}'):
        inputs.read([tmp_path])


def test_nothing_to_report(tmp_path):
    (tmp_path / 'results.jsonl').touch()
    (tmp_path / 'notes.json').write_text('{"a": 1}')
    for paths in ([tmp_path], [tmp_path / 'results.jsonl'], []):
        with pytest.raises(ValueError, match='expected records, logs, benchmarks or images in .*, found none; name'):
            inputs.read(paths)
    with pytest.raises(InputError, match=r'found nothing at .*results\*.jsonl; name what is there'):
        inputs.read([tmp_path / 'results*.jsonl'])


def test_unreadable_input_is_reported(tmp_path, caplog):
    store = stores.write_store(tmp_path, stores.corrupted(ALEX))
    with store.open('a') as file:
        file.write('{"torn": ')
    with caplog.at_level(logging.WARNING):
        assert len(next(iter(inputs.read([store]).tables.values()))) == 76
    assert 'dropped a torn last line' in caplog.text
    (tmp_path / 'verdicts.jsonl').write_text('{"model": 1}\n')
    with pytest.raises(ValueError, match='expected the verdicts of some images in line 1 of .*verdicts.jsonl'):
        inputs.read([store])
    (tmp_path / 'bad.json').write_text('{')
    with pytest.raises(ValueError, match='expected JSON in .*bad.json, got none'):
        inputs.read([tmp_path / 'bad.json'])
    row = {**vars(stores.corrupted(ALEX)[0]), 'value': 'high'}
    (tmp_path / 'bad.json').write_text(json.dumps({'records': [row]}))
    with pytest.raises(ValueError, match="numbers in .*bad.json: expected .*float.* as value, got 'high'; "):
        inputs.read([tmp_path / 'bad.json'])


def test_summaries_hold_records_too(tmp_path):
    """What --json of a tool wrote, alone or several in one file."""
    rows = [{**vars(record), 'low': 0, 'high': 1} for record in stores.corrupted(ALEX)]
    (tmp_path / 'c.json').write_text(json.dumps({'several': [{'model': ALEX, 'dataset': DATA, 'records': rows}]}))
    (table,) = inputs.read([tmp_path]).tables.values()
    assert table.records == tuple(stores.corrupted(ALEX))


def test_hidden_folders_and_own_figures_are_passed_over(tmp_path):
    for name in ('.cache', 'figures', 'shown'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'x.png').write_bytes(stores.png())
    found = inputs.read([tmp_path], apart_from=[tmp_path / 'figures'])
    assert list(found.pictures) == [tmp_path / 'shown']


def test_a_resumed_run_replaces_what_it_did_again(tmp_path):
    """Stopped after step 6, gone on from step 5 with another loss."""
    stores.write_log(tmp_path, range(1, 7))
    stores.write_log(tmp_path, range(5, 9), started='20260103_000000', loss=20.)
    files = inputs.read([tmp_path]).logs[tmp_path]
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
    assert training.read_log(tmp_path, [path]) is None


def test_commands_are_those_of_the_last_run(tmp_path):
    argv = ('/somewhere/tools/eval_imagenet_c.py', '--weights=w/half.pth', '--model', 'half', '--data', 'a b',
            '--precision', 'bf16', '--jpeg-quality', '85', '--csv', 'x.csv')
    kept = inputs.read([stores.write_store(tmp_path, stores.corrupted(HALF), *argv)])
    assert flags(argv[1:]) == {'--weights': ['w/half.pth'], '--model': ['half'], '--data': ['a b'],
                               '--precision': ['bf16'], '--jpeg-quality': ['85'], '--csv': ['x.csv']}
    assert classifier_command(kept, 'eval_imagenet_c.py', HALF) == (
        "pit-downstream eval-imagenet-c --weights w/half.pth --model half --data 'a b' --precision bf16 "
        '--jpeg-quality 85')
    assert classifier_command(kept, 'eval_adversarial.py', HALF, '--limit', '5') == (
        "pit-downstream eval-adversarial --weights w/half.pth --model half --data 'a b' --limit 5")
    assert attention_command(kept, HALF) == (
        "pit-downstream analyze-attention --model half --weights w/half.pth --data 'a b' --output-dir DIR")
    assert as_source(kept, HALF) == "half(weights='w/half.pth')"
    other = HALF.replace('half.pth', 'other.pth')  # of other weights than the run had
    assert classifier_command(kept, 'eval_shifts.py', other) == (
        'pit-downstream eval-shifts --model half --weights FILE')
    assert detector_command(kept, 'eval_adversarial.py', DETECTOR) == (
        'pit-downstream eval-adversarial --model configs/retina.py --weights CHECKPOINT')


def test_a_detectors_command(tmp_path):
    argv = ('pit-downstream eval-adversarial', '--bundled', '--model', 'configs/retina.py', '--weights', 'w.pth',
            '--attacks', 'fgsm', '--precision', 'bf16')
    kept = inputs.read([stores.write_store(tmp_path, stores.detected(), *argv)])
    assert detector_command(kept, 'eval_coco_c.py', DETECTOR) == (
        'pit-downstream eval-coco-c --bundled --model configs/retina.py --weights w.pth')
    assert detector_command(kept, 'eval_adversarial.py', DETECTOR) == (
        'pit-downstream eval-adversarial --bundled --model configs/retina.py --weights w.pth --precision bf16')


def test_names():
    assert get_image_key(DATA) == get_image_key(DATA.replace('224', '64')) != get_image_key(DATA.replace('d1', 'd2'))
    assert dataset_label(DATA) == 'imagenet_c, 1000 images'
    assert dataset_label("coco(annotations='instances_val.json@abcd', images=150, limit=8)") == (
        'coco instances_val, 8 of 150 images')
    assert dataset_label('imagenet_sample') == 'imagenet_sample'


def test_an_own_store_stays_as_it_was(tmp_path):
    store = stores.write_store(tmp_path, stores.corrupted(ALEX))
    before = store.read_bytes()
    inputs.read([store])
    assert store.read_bytes() == before and len(ResultStore(store).records()) == 76


def test_two_datasets_of_one_annotation_file_have_two_labels(tmp_path):
    datasets = [f"coco(annotations='val.json@abcd', files='{files}', images=8)" for files in ('d1', 'd2')]
    records = [Record(DETECTOR, dataset, 'clean', 'AP', .5, 8, 0) for dataset in datasets]
    groups = list(Measured(inputs.read([stores.write_store(tmp_path, records)])).groups(lambda one: True))
    assert [group.name for group in groups] == ['coco val, 8 images, files d1', 'coco val, 8 images, files d2']


def test_one_model_on_two_views_has_two_labels(tmp_path):
    small = DATA.replace('224', '64')
    store = stores.write_store(tmp_path, [*stores.corrupted(ALEX), *stores.corrupted(ALEX, .5, data=small)])
    measured = Measured(inputs.read([store]))
    assert [one.label for one in measured.ones] == ['alex, size=224', 'alex, size=64']
    (group,) = measured.groups(lambda one: one.classifies)
    assert group.name == 'imagenet_c, 1000 images' and len(group.ones) == 2
