"""What --model, --weights and --data select."""

import json

import pytest
import torch

from pit_downstream import api
from pit_downstream.cli import eval_adversarial
from pit_downstream.evaluation.models import build_classifier
from pit_downstream.utils.errors import InputError

CONFIG = """_base_ = '{configs}/imagenet_pit_s.py'
model = dict(network=dict(name='pit_ti', img_size=64, num_classes=4))
"""


@pytest.fixture
def config(tmp_path):
    from pit_downstream.utils.config_paths import config_folder
    path = tmp_path / 'shapes_pit_ti.py'
    path.write_text(CONFIG.format(configs=config_folder()))
    return path


def test_config_of_a_classifier_gives_its_network_without_training_settings(config, tmp_path):
    choice = api.choose_model(str(config), str(tmp_path), 'classifier', 'detector')
    assert choice == ('classifier', 'pit_ti(img_size=64, num_classes=4)', str(tmp_path / 'weights.pth'))


def test_bundled_names_are_configs_and_other_names_are_classifiers():
    assert api.choose_model('pit_s', None, 'classifier') == ('classifier', 'pit_s', None)
    assert api.choose_model('retinanet_pit_ti', 'w.pth', 'classifier', 'detector')[0] == 'detector'


@pytest.mark.parametrize('model, weights, tasks, words', [
    ('imagenet_pit_s', None, ['classifier'], '--weights is missing for the config imagenet_pit_s'),
    ('retinanet_pit_ti', 'w.pth', ['classifier'], 'must be a classifier, got the config of a detector'),
    ('imagenet_pit_s', 'w.pth', ['detector'], 'must be a detector, got the config of a classifier'),
    ('retinanet_pit_tii', 'w.pth', ['detector'], 'Did you mean retinanet_pit_ti'),
    ('nowhere.py', 'w.pth', ['classifier'], "config file not found: 'nowhere.py'")])
def test_models_of_another_task_and_missing_weights_are_refused(model, weights, tasks, words):
    with pytest.raises(InputError, match=words):
        api.choose_model(model, weights, *tasks)


def test_config_and_name_of_a_classifier_are_one_model_on_the_bundled_images(run_tool, few_shapes, config, tmp_path):
    weights = tmp_path / 'weights.pth'
    torch.save(build_classifier('pit_ti(img_size=64, num_classes=4)', weights='random').model.state_dict(), weights)
    data = ('--bundled', '--data', few_shapes, '--corruptions', 'brightness', '--severities', 1, '--workers', 0)
    by_config = run_tool('eval_imagenet_c.py', '--model', config, '--weights', tmp_path, *data)
    by_name = run_tool('eval_imagenet_c.py', '--model', 'pit_ti(img_size=64, num_classes=4)', '--weights', weights,
                       *data)
    assert by_config.code == by_name.code == 0, by_config.err + by_name.err
    tables = {done.out.partition('no mean')[0] for done in (by_config, by_name)}
    assert len(tables) == 1 and tables.pop().startswith("pit_ti(img_size=64, num_classes=4, weights='weights.pth@")
    records = (tmp_path / 'work_dirs/records/results.jsonl').read_text().splitlines()
    assert len({json.loads(record)['model'] for record in records}) == 1 and len(records) == 8


@pytest.mark.parametrize('model, given, words', [
    ('pit_s', ['--resolution', 'original'], '--resolution applies to a detector, got a classifier: pit_s'),
    ('pit_s', ['--cfg-options', 'a=1'], '--cfg-options applies to a detector'),
    ('retinanet_pit_ti', ['--precision', 'bf16'], '--precision applies to a classifier, got a detector'),
    ('retinanet_pit_ti', ['--source', 'resnet50'], '--source applies to a classifier')])
def test_flags_of_the_other_task_are_refused(model, given, words, capsys):
    with pytest.raises(SystemExit, match='2'):
        eval_adversarial.main(['--model', model, '--weights', 'random', *given])
    assert words in capsys.readouterr().err


def test_debug_shows_the_traceback_of_refused_input():
    with pytest.raises(InputError, match='--resolution'):
        eval_adversarial.main(['--model', 'pit_s', '--resolution', 'original', '--debug'])
