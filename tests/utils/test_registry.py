import pytest

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import Registry


def test_registry_keeps_order_and_metadata():
    fruits = Registry('fruit')
    assert fruits.register('pear', season='autumn')(1) == 1
    fruits.register('fig')(2)
    assert list(fruits) == ['pear', 'fig'] and len(fruits) == 2 and 'fig' in fruits and fruits['fig'] == 2
    assert fruits.get_entry('pear').metadata['season'] == 'autumn'


def test_an_unknown_name_is_answered_with_near_ones():
    fruits = Registry('fruit')
    fruits.register('pear')(1)
    fruits.register('fig')(2)
    with pytest.raises(InputError, match="no fruit named 'paer'; did you mean pear?"):
        fruits['paer']
    with pytest.raises(InputError, match='there are pear, fig'):
        fruits['zzz']


def test_a_name_is_given_once():
    fruits = Registry('fruit')
    fruits.register('pear')(1)
    with pytest.raises(ValueError, match="there is a fruit named 'pear' already"):
        fruits.register('pear')(2)
    assert fruits['pear'] == 1
