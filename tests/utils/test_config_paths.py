"""Configs are found by path, and ours by name from any folder."""

from pathlib import Path

import pytest

from pit_downstream.utils.config_paths import find_config
from pit_downstream.utils.errors import InputError

CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.mark.parametrize('name', ['retinanet_pit_ti', 'retinanet_pit_ti.py', CONFIGS / 'retinanet_pit_ti.py'])
def test_finds_bundled_config_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == CONFIGS / 'retinanet_pit_ti.py'


def test_prefers_existing_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('retinanet_pit_ti.py').touch()
    assert find_config('retinanet_pit_ti.py') == Path('retinanet_pit_ti.py')


def test_refuses_unknown_name():
    with pytest.raises(InputError, match='retinanet_pit_xl'):
        find_config('retinanet_pit_xl')
