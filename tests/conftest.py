"""What several rooms of the suite share: a handful of bundled pictures, and the messages of mmengine's logger."""

import logging

import pytest

from pit_downstream.datasets.shapes import write_shapes


@pytest.fixture(scope='session')
def few_shapes(tmp_path_factory):
    """A folder of bundled pictures: 16 to train on, 4 to validate."""
    return write_shapes(tmp_path_factory.mktemp('few') / 'shapes', train=16, val=4,
                        classification_train=6, classification_val=6)


@pytest.fixture
def logged():
    """The messages that mmengine's current logger gets during the test, as a list that grows."""
    from mmengine.logging import MMLogger
    messages, handler, logger = [], logging.Handler(), MMLogger.get_current_instance()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)
