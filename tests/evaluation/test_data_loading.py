"""Batches of images of many sizes, sent by workers."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from pit_downstream.utils.protocols import Sample
from pit_downstream.evaluation.data_loading import load_blocks

LIMITED = """import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


class Sizes:
    """Images of one size each; the target is a dict with a tensor, as of a detector."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image = torch.full((3, 5 + index, 40), index, dtype=torch.uint8)
        return Sample(f'{index}', image, {'boxes': torch.full((2, 4), float(index)), 'array': np.arange(index)})


def test_batch_arrives_with_its_ids_images_and_targets():
    plain, sent = (next(load_blocks([Sizes(9)], [(0, range(9))], batch_size=4, workers=workers)).batches
                   for workers in (0, 2))
    assert [batch.ids for batch in sent] == [batch.ids for batch in plain] == [(f'{index}',) for index in range(9)]
    assert [batch.indices for batch in sent] == [(index,) for index in range(9)]
    for batch, other in zip(sent, plain, strict=True):
        assert torch.equal(batch.images, other.images)
        assert torch.equal(batch.targets[0]['boxes'], other.targets[0]['boxes'])
        assert np.array_equal(batch.targets[0]['array'], other.targets[0]['array'])


def test_a_batch_of_64_sizes_needs_few_file_descriptors(tmp_path, run_tool):
    """64 descriptors in all, where each of two workers decodes batches of 64 sizes ahead."""
    for index in range(128):
        path = tmp_path / 'val' / 'n01440764' / f'{index:03d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (40 + index % 64, 40), (index, 0, 0)).save(path)
    done = run_tool('eval_imagenet_c.py', '--model', 'tests.evaluation.toy:classifier', '--data', 'val', '--preprocess',
                    'none', '--workers', '2', '--batch-size', '64', '--corruptions', 'brightness', '--severities',
                    '1', '--device', 'cpu', start=(sys.executable, '-c', LIMITED), timeout=120)
    assert done.code == 0, done.err


class Faulty(Sizes):
    def __getitem__(self, index):
        raise RuntimeError('a fault of a decoder')


def test_an_error_in_a_worker_keeps_its_type_and_text():
    """It is not reported as a killed worker."""
    with pytest.raises(RuntimeError, match='a fault of a decoder'):
        list(load_blocks([Faulty(4)], [(0, range(4))], batch_size=2, workers=1))
