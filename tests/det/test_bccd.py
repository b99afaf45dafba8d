"""Real images: BCCD as its config reads it, one file cut short. Runs where PIT_DOWNSTREAM_REAL_DATA names the data."""

import os
from pathlib import Path

import pytest

import pit_downstream.det  # noqa: F401
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from pit_downstream.det import data_checks as data

REAL = os.environ.get('PIT_DOWNSTREAM_REAL_DATA')
pytestmark = pytest.mark.skipif(not REAL, reason='PIT_DOWNSTREAM_REAL_DATA names no folder with bccd/')
CONFIG = Path(__file__).parents[2] / 'configs' / 'retinanet_pit_ti_bccd.py'


@pytest.fixture
def config():
    cfg = Config.fromfile(CONFIG)
    data.set_data_root(cfg, f'{REAL}/bccd')
    data.replace_image_loaders(cfg)
    init_default_scope('mmdet')
    return cfg


def test_every_image_and_class_is_there(config):
    data.require_data(config, data.LOADERS)
    train, val = (DATASETS.build(config[f'{split}_dataloader'].dataset) for split in ('train', 'val'))
    assert (len(train), len(val)) == (205, 87)
    sample = val[0]
    assert sample['inputs'].shape == (3, 264, 352)
    assert set(sample['data_samples'].gt_instances.labels.tolist()) <= {0, 1, 2}


def test_training_goes_on_past_a_truncated_image(config, tmp_path, logged):
    """The first image is cut short: it is named in the log, and another stands in its place."""
    dataset = DATASETS.build(config.train_dataloader.dataset)
    info = dataset.get_data_info(0)
    broken = tmp_path / 'broken.jpg'
    content = Path(info['img_path']).read_bytes()
    broken.write_bytes(content[:len(content) // 2])
    assert dataset.prepare_data(0) is not None
    dataset.get_data_info = lambda index, whole=dataset.get_data_info: {
        **whole(index), **({'img_path': str(broken)} if index == 0 else {})}
    sample = dataset[0]
    assert sample['data_samples'].img_path != str(broken) and sample['inputs'].ndim == 3
    assert any('broken.jpg is broken' in text and 'truncated' in text for text in logged)
