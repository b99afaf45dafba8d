"""JPEG without a file and through the codec, against Pillow's libjpeg-turbo."""
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from pit_downstream.corruptions.jpeg import DctCoefficients, apply_jpeg, disable_low_precision
from tests.corruptions.photographs import photograph

pytestmark = pytest.mark.numeric


def pillow(image: np.ndarray, quality: int) -> torch.Tensor:
    file = BytesIO()
    Image.fromarray(image).save(file, 'JPEG', quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


@pytest.mark.parametrize('quality', [1, 7, 25, 49, 50, 85, 95])
@pytest.mark.parametrize('size', [(64, 96), (33, 32), (47, 50), (40, 61)])
def test_equals_pillow(size, quality):
    image = photograph('coffee', size)
    ours = DctCoefficients(torch.from_numpy(image).permute(2, 0, 1)[None]).decode(quality)[0]
    difference = (ours.int() - pillow(image, quality).int()).abs()
    # float32 holds the DCT's second pass only to 2^24: at fine qualities one value in 10,000 may round the other way
    assert difference.max() <= 1 and (difference > 0).float().mean() < 1e-3


def test_autocast_has_no_effect():
    """As of a training loop under autocast; TensorFloat-32 would show on a GPU alone."""
    images = torch.from_numpy(photograph('coffee', (40, 61))).permute(2, 0, 1)[None]
    alone = DctCoefficients(images).decode(85)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(DctCoefficients(images).decode(85), alone)
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    torch.set_float32_matmul_precision('high')
    try:
        with disable_low_precision(torch.device('cpu')):
            assert torch.get_float32_matmul_precision() == 'highest'
        assert torch.get_float32_matmul_precision() == 'high'
    finally:
        torch.set_float32_matmul_precision('highest')


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, 'fp32_precision'), reason='torch before 2.9 has one way')
def test_fp32_precision_setting_is_restored():
    matmul = torch.backends.cuda.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, 'tf32'
    try:
        with disable_low_precision(torch.device('cpu')):
            assert matmul.fp32_precision == 'ieee'
        assert matmul.fp32_precision == 'tf32'
    finally:
        matmul.fp32_precision = before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_gpu_equals_cpu():
    images = torch.from_numpy(photograph('coffee', (40, 61))).permute(2, 0, 1)[None]
    torch.set_float32_matmul_precision('high')
    try:
        ours = DctCoefficients(images.cuda()).decode(85).cpu()
    finally:
        torch.set_float32_matmul_precision('highest')
    assert torch.equal(ours, DctCoefficients(images).decode(85))


def test_pillow_jpeg_of_a_batch():
    """85, at which the files of ImageNet-C were saved, and others: each image and quality at its place."""
    images = [photograph(name, (48, 41)) for name in ('rocket', 'chelsea', 'coffee')]
    batch = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images])
    for quality, ours in zip((85, 7, 30), apply_jpeg(batch, (85, 7, 30)), strict=True):
        assert torch.equal(ours, torch.stack([pillow(image, quality) for image in images]))


def test_noise_of_full_range():
    """The largest coefficients there are."""
    image = np.random.default_rng(0).choice([0, 255], (48, 48, 3)).astype(np.uint8)
    ours = DctCoefficients(torch.from_numpy(image).permute(2, 0, 1)[None]).decode(10)[0]
    assert torch.equal(ours, pillow(image, 10))


@pytest.mark.parametrize('quality', [0, 101])
def test_invalid_quality_raises(quality):
    with pytest.raises(ValueError, match=f'JPEG quality must be in 1..100, got {quality}'):
        next(apply_jpeg(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), (quality,)))
