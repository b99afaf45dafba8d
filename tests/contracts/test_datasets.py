"""Every shifted dataset, on a small folder in its published layout."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pit_downstream.results.condition import CLEAN
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import DATASETS
from pit_downstream.utils.spec import Spec
from pit_downstream.datasets import backgrounds, imagenet_shifts  # noqa: F401  registers them
from pit_downstream.datasets.base import Preprocess
from tests.datasets import shift_folders

VIEW = Preprocess(32, 36)


@pytest.mark.parametrize('name', [name for name in DATASETS if DATASETS.get_entry(name).metadata['folder']])
def test_folder_loads(tmp_path, name):
    root = shift_folders.make(name, tmp_path / 'data')
    shift = DATASETS[name](root, view=VIEW)
    samples = shift.samples
    spec = Spec.parse(samples.name)
    assert (spec.name, spec.get('images')) == (name, len(samples)) and len(samples) > 3
    assert samples.ids == sorted(set(samples.ids)) and samples.at(CLEAN) == (samples, CLEAN)
    allowed = range(1000) if shift.classes is None else shift.classes
    for index in (0, len(samples) - 1):
        sample = samples[index]
        assert sample.image.shape == (3, 32, 32) and sample.image.dtype == torch.uint8
        assert sample.target and set(sample.target) <= set(allowed) and sample.target == samples.targets[index]
    assert len(set(samples.targets)) == len({id.split('/')[0] for id in samples.ids})  # a class for each folder
    limited = samples.take(3)
    assert len({limited[i].target for i in range(3)}) == min(3, len(set(samples.targets)))


@pytest.mark.parametrize('name', [name for name in DATASETS if DATASETS.get_entry(name).metadata['folder']])
def test_error_describes_another_folder(tmp_path, name):
    title = DATASETS.get_entry(name).metadata['title'].split()[0]
    for wrong, words in (('cats', 'which looks like 2 folders (cat, dog)'), ('empty', 'images without class folders')):
        root = tmp_path / wrong
        for folder in ('cat', 'dog') if wrong == 'cats' else ('',):
            shift_folders.write_image(root / folder / '0.png')
        with pytest.raises(ValueError) as caught:
            DATASETS[name](root, view=VIEW)
        message = caught.value.args[0]
        assert message.startswith('Expected ') and str(root) in message and words in message and '\n' not in message
        assert title in message or title == 'IN-9' and 'Backgrounds Challenge' in message
    with pytest.raises(InputError, match='expected a folder at .*nowhere, found none'):
        DATASETS[name](tmp_path / 'nowhere', view=VIEW)


@pytest.mark.parametrize('name', [name for name in DATASETS if DATASETS.get_entry(name).metadata['folder']])
def test_images_are_cropped_as_published(tmp_path, name):
    """IN-9 and Stylized ImageNet are not resized, ObjectNet loses its frame, others are as for the model."""
    root = shift_folders.make(name, tmp_path / 'data')
    samples = DATASETS[name](root, view=replace(VIEW, size=224, resize=256)).samples
    with Image.open(samples.root / samples.ids[0]) as image:
        whole = image.convert('RGB')
    if name.startswith('in9_') or name == 'imagenet_stylized':
        expected = torch.from_numpy(np.array(whole)).permute(2, 0, 1)
    else:
        inner = whole.crop((2, 2, whole.width - 2, whole.height - 2))
        expected = Preprocess(224, 256)(inner if name == 'objectnet' else whole)
    assert torch.equal(samples[0].image, expected)
