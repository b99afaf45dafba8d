"""pit_downstream.training.launch: which file a config's name means."""

import pytest

from pit_downstream.training.launch import config_file


@pytest.mark.parametrize('text', ['nowhere.py', 'nowhere::x.py', 'no.where::x.py', '::x.py'])
def test_a_config_that_is_not_there(text):
    with pytest.raises(FileNotFoundError, match='expected a config file, found none at'):
        config_file(text)
