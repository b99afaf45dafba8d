"""Collections are paused in the block alone."""

import gc

import pytest

from pit_downstream.utils.imports import pause_garbage_collection


@pytest.mark.parametrize('enabled', [True, False])
def test_state_of_collector_is_restored_after_an_error(enabled):
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(KeyError), pause_garbage_collection():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
