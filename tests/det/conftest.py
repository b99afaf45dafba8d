"""Five images, and the detectors of tests/det/tiny.py: made once for all files."""

from functools import cache

import pytest

import pit_downstream.det  # noqa: F401
from tests.det import scenes, tiny


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    return scenes.coco_folder(tmp_path_factory.mktemp('coco') / 'data')


@pytest.fixture(scope='session')
def detectors(folder):
    """detectors(family) is (predictor, samples)."""
    return cache(lambda family: tiny.detector(folder, family))
