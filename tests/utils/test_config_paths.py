"""Configs are found by path, and ours by name from any folder."""

from pathlib import Path

import pytest

from pit_downstream.utils.config_paths import find_config, is_config
from pit_downstream.utils.errors import InputError

CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.mark.parametrize('name', ['retinanet_pit_ti', 'retinanet_pit_ti.py', 'configs/retinanet_pit_ti.py',
                                  CONFIGS / 'retinanet_pit_ti.py'])
def test_finds_bundled_config_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name).resolve() == CONFIGS / 'retinanet_pit_ti.py' and is_config(str(name))


def test_prefers_existing_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('retinanet_pit_ti.py').touch()
    assert find_config('retinanet_pit_ti.py') == Path('retinanet_pit_ti.py')


def test_a_folder_with_the_name_of_a_config_is_no_config_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('retinanet_pit_ti').mkdir()
    assert find_config('retinanet_pit_ti').resolve() == CONFIGS / 'retinanet_pit_ti.py'


def test_configs_of_mmdet_are_found_in_its_package():
    assert find_config('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py').is_file()


@pytest.mark.parametrize('name', ['retinanet_pit_xl', 'nowhere.py', 'elsewhere/retinanet_pit_ti.py', 'nowhere::x.py',
                                  'no.where::x.py', '::x.py'])
def test_refuses_unknown_name_with_near_ones(name):
    with pytest.raises(InputError, match=f"config file not found: '{name}'.*{'retinanet' if 'retina' in name else ''}"):
        find_config(name)


@pytest.mark.parametrize('name, expected', [
    ('pit_s', False), ('torchvision:resnet50', False), ('package.module:function', False), ('_base_', False),
    ('mine.py', True), ('folder/mine.yaml', True), ('mmdet::x/y.py', True), ('imagenet_pit_s', True)])
def test_names_of_models_are_no_configs(name, expected):
    assert is_config(name) == expected
