"""Features of an image do not depend on other images of its batch, nor on its padding there."""

import itertools
from functools import partial

import pytest
import torch
from torch import nn

from pit_downstream.backbones import DeepViT, PiT, pit
from pit_downstream.backbones.multi_scale import forward_per_size
from tests.tolerances import assert_near

SIZES = [(64, 96), (89, 47), (64, 96), (51, 70)]  # no side is shared by all, and most are multiples of no stride
FULL = (89, 96)
BACKBONES = {
    **{f'PiT-{arch} {padding}': partial(PiT, arch, stem_padding=padding, out_indices=(0, 1))
       for arch, padding in itertools.product(pit.ARCHS, ('valid', 'same'))},  # PiT-B's third stage is 60 M parameters
    'PiT distilled': partial(PiT, 'ti', distilled=True, out_indices=(0, 2)),
    'DeepViT-16': partial(DeepViT, '16', out_indices=(0, 1, 2), out_strides=(4, 8, 32), budget=2 ** 16),
    'DeepViT-s': partial(DeepViT, 's', out_indices=(0, 11), out_strides=(8, 32)),
    'ViT-S simple': partial(DeepViT, 'vit_s', pyramid='simple', out_indices=(1,), pyramid_channels=16),
}


def padded(images):
    """Images (3, h, w) in one batch, padded with zeros as by mmdet."""
    batch = torch.zeros(len(images), 3, *FULL)
    for padded_image, image in zip(batch, images):
        padded_image[:, :image.shape[1], :image.shape[2]] = image
    return batch


@pytest.fixture(scope='module')
def images():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, *size, generator=generator) for size in SIZES]


@pytest.mark.numeric
@pytest.mark.parametrize('name', BACKBONES)
@torch.no_grad()
def test_padded_features_equal_those_of_an_image_alone(name, images):
    torch.manual_seed(0)
    backbone = BACKBONES[name]().eval()
    batch, leaking = backbone(padded(images), SIZES), backbone(padded(images))
    assert [one.shape for one in batch] == [one.shape for one in leaking]
    worst = 0.0
    for place, image in enumerate(images):
        for mine, alone, leaked in zip(batch, backbone(image[None]), leaking, strict=True):
            height, width = alone.shape[-2:]
            assert_near(mine[place, :, :height, :width], alone[0], 'network')
            assert not mine[place, :, height:].any() and not mine[place, :, :, width:].any()
            worst = max(worst, (leaked[place, :, :height, :width] - alone[0]).abs().max().item())
    assert worst > 1e-2  # what is fixed


def test_one_size_is_bit_identical():
    backbone = PiT('ti').eval()
    images = torch.randn(2, 3, 64, 80)
    sizes = [(64, 80)] * 2
    assert all(torch.equal(one, other) for one, other in zip(backbone(images, sizes), backbone(images)))
    seen = []
    forward_per_size(lambda one: seen.append(one) or (one,), images, sizes)
    assert seen[0] is images


def test_no_gradient_flows_to_mates_or_padding(images):
    batch = padded(images).requires_grad_()
    PiT('ti', out_indices=(2,))(batch, SIZES)[0][3].square().sum().backward()
    height, width = SIZES[3]
    assert batch.grad[3, :, :height - 6, :width - 6].abs().sum() > 0
    batch.grad[3, :, :height, :width] = 0
    assert not batch.grad.any()


def test_order_is_kept():
    images = torch.arange(5.)[:, None, None, None].expand(5, 1, 4, 6).contiguous()
    [maps] = forward_per_size(lambda one: (one * 2,), images, [(2, 6), (4, 6), (2, 6), (4, 3), (4, 6)])
    assert maps[:, 0, 0, 0].tolist() == [0, 2, 4, 6, 8]
    assert (maps > 0).sum((1, 2, 3)).tolist() == [0, 24, 12, 12, 24]


@pytest.mark.parametrize('sizes', [[(4, 4)], [(4, 4), (5, 4)], [(4, 4), (0, 4)]])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match=r'expected a size up to \(4, 4\) for each of 2 images'):
        forward_per_size(lambda images: (images,), torch.zeros(2, 3, 4, 4), sizes)


def test_sync_batch_norm_is_refused_with_several_ranks(images, monkeypatch):
    """The ranks would deadlock where one has fewer sizes."""
    backbone = nn.SyncBatchNorm.convert_sync_batchnorm(DeepViT('16', out_indices=(0,), out_strides=(16,)))
    monkeypatch.setattr('torch.distributed.is_initialized', lambda: True)
    monkeypatch.setattr('torch.distributed.get_world_size', lambda: 2)
    with pytest.raises(ValueError, match='SyncBatchNorm; set norm_eval=True'):
        backbone(padded(images), SIZES)
    assert len(backbone.eval()(padded(images), SIZES)) == 1
