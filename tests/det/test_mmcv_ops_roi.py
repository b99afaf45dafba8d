"""roi_align, roi_pool and deform_roi_pool against compiled mmcv, torchvision, loops written out, and gradcheck."""
import math

import pytest
import torch
import torchvision

from tests.det.mmcv_reference import equal, gradients, reference

from mmcv import ops  # isort: skip  (after install)
from tests.tolerances import assert_near

pytestmark = pytest.mark.numeric

CASES = [(mode, aligned, ratio) for mode in ('avg', 'max') for aligned in (1, 0) for ratio in (0, 2)]


def random_input(seed: int, channels: int = 3, size: tuple[int, int] = (11, 14)) -> tuple[torch.Tensor, torch.Tensor]:
    """A map of 2 images at stride 4 and 6 RoIs, some of them beyond the rim; float64."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, channels, *size, generator=generator, dtype=torch.float64)
    corner = torch.rand(6, 2, generator=generator, dtype=torch.float64) * 4 * max(size) - 8
    extent = torch.rand(6, 2, generator=generator, dtype=torch.float64) * 30 + 1
    images = torch.tensor([[0.0], [1], [1], [0], [0], [1]], dtype=torch.float64)
    return features, torch.cat([images, corner, corner + extent], dim=1)


def naive_bilinear(plane, y, x):
    """RoIAlign's rule: the border holds for one pixel outside, then 0."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return plane.new_zeros(())
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = plane[top, left] * (1 - x + left) + plane[top, right] * (x - left)
    lower = plane[bottom, left] * (1 - x + left) + plane[bottom, right] * (x - left)
    return upper * (1 - y + top) + lower * (y - top)


def naive_deform_roi_pool(features, rois, offset, bins, scale, ratio, gamma):
    output = features.new_zeros(len(rois), features.shape[1], *bins)
    for r, (image, *box) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (value * scale - 0.5 for value in box)
        gy, gx = (ratio or math.ceil(size / count) for size, count in zip((y2 - y1, x2 - x1), bins))
        for c, i, j in torch.cartesian_prod(*map(torch.arange, output.shape[1:])).tolist():
            left = x1 + gamma * (x2 - x1) * offset[r, 0, i, j].item()
            top = y1 + gamma * (y2 - y1) * offset[r, 1, i, j].item()
            values = [naive_bilinear(features[int(image), c], top + (i + (u + 0.5) / gy) * (y2 - y1) / bins[0],
                                     left + (j + (v + 0.5) / gx) * (x2 - x1) / bins[1])
                      for u in range(gy) for v in range(gx)]
            output[r, c, i, j] = sum(values) / len(values)
    return output


def naive_roi_pool(features, rois, bins, scale):
    output = features.new_zeros(len(rois), features.shape[1], *bins)
    height, width = features.shape[2:]
    for r, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = x1 * scale, y1 * scale, (x2 + 1) * scale, (y2 + 1) * scale
        for i in range(bins[0]):
            for j in range(bins[1]):
                rows = range(math.floor(y1 + i * (y2 - y1) / bins[0]), math.ceil(y1 + (i + 1) * (y2 - y1) / bins[0]))
                columns = range(math.floor(x1 + j * (x2 - x1) / bins[1]), math.ceil(x1 + (j + 1) * (x2 - x1) / bins[1]))
                window = [features[int(image), :, y, x]
                          for y in rows if 0 <= y < height for x in columns if 0 <= x < width]
                if window:
                    output[r, :, i, j] = torch.stack(window).amax(dim=0)
    return output


@pytest.mark.parametrize('mode, aligned, ratio', CASES)
def test_roi_align_equals_compiled_mmcv(mode, aligned, ratio):
    features = reference('roi_input').requires_grad_()
    output = ops.roi_align(features, reference('roi_rois'), (7, 5), 0.125, ratio, mode, bool(aligned))
    equal(output, reference(f'roialign_{mode}_{aligned}_{ratio}'))
    grad, = gradients(output, reference('roi_grad_out'), features)
    equal(grad, reference(f'roialign_{mode}_{aligned}_{ratio}_grad'))


@pytest.mark.parametrize('mode, aligned, ratio', CASES)
def test_roi_align_gradcheck(mode, aligned, ratio):
    features, rois = random_input(seed=1, channels=1, size=(5, 6))
    assert torch.autograd.gradcheck(
        lambda f: ops.roi_align(f, rois, (2, 3), 0.25, ratio, mode, bool(aligned)), features.requires_grad_())


@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align_max_in_pieces_is_the_same(monkeypatch, ratio):
    from pit_downstream.det.mmcv_ops import kernel
    features, rois = random_input(seed=2)
    whole = ops.roi_align(features, rois, (3, 2), 0.25, ratio, 'max')
    monkeypatch.setattr(kernel, 'CHUNK_VALUES', 1)
    assert torch.equal(ops.roi_align(features, rois, (3, 2), 0.25, ratio, 'max'), whole)


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_roi_align_of_one_sample_a_bin_takes_the_same_average_and_maximum(mode):
    features, rois = random_input(seed=3)
    expected = torchvision.ops.roi_align(features, rois, (4, 3), 0.25, 1, True)
    equal(ops.roi_align(features, rois, (4, 3), 0.25, 1, mode, True), expected)


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_roi_align_keeps_the_dtype(mode, dtype):
    features, rois = (tensor.to(dtype) for tensor in random_input(seed=4))
    features.requires_grad_()
    output = ops.roi_align(features, rois, (3, 3), 0.25, 2, mode)
    expected = ops.roi_align(features.float(), rois.float(), (3, 3), 0.25, 2, mode)
    assert output.dtype == dtype
    assert_near(output, expected, 'layer')
    assert gradients(output, torch.ones_like(output), features)[0].dtype == dtype


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_roi_align_without_rois_and_with_an_empty_one(mode):
    features, rois = random_input(seed=5)
    features.requires_grad_()
    output = ops.roi_align(features, rois[:0], (3, 3), 0.25, 0, mode)
    assert output.shape == (0, 3, 3, 3)
    assert not gradients(output, output, features)[0].any()
    point = torch.tensor([[0.0, 9, 9, 9, 9]], dtype=torch.float64)
    output = ops.roi_align(features, point, (3, 3), 0.25, 0, mode)
    assert not output.any()
    assert not gradients(output, torch.ones_like(output), features)[0].any()


@pytest.mark.parametrize('pieces', [False, True])
@pytest.mark.parametrize('bins', [(3, 2), (7, 9)])
def test_roi_pool_equals_the_loop(monkeypatch, bins, pieces):
    from pit_downstream.det.mmcv_ops import kernel
    features, rois = random_input(seed=6)
    if pieces:
        monkeypatch.setattr(kernel, 'CHUNK_VALUES', 1)
    equal(ops.roi_pool(features, rois, bins, 0.25), naive_roi_pool(features, rois, bins, 0.25))


def test_roi_pool_equals_torchvision_where_nothing_is_rounded():
    """At scale 1 torchvision's RoI x1..x2 is x2 - x1 + 1 wide too, from integer corners."""
    features, _ = random_input(seed=7)
    rois = torch.tensor([[0.0, 1, 2, 8, 9], [1, 0, 0, 13, 10], [1, 3, 3, 3, 3]], dtype=torch.float64)
    equal(ops.roi_pool(features, rois, (3, 3), 1.0), torchvision.ops.roi_pool(features, rois, (3, 3), 1.0))


def test_roi_pool_gradient():
    features, rois = random_input(seed=8, channels=2, size=(4, 5))
    rois = torch.cat([rois, torch.tensor([[0.0, 20, 20, 10, 10]], dtype=torch.float64)])  # inverted: pools nothing
    assert torch.autograd.gradcheck(lambda f: ops.roi_pool(f, rois, (2, 3), 0.25), features.requires_grad_())
    assert not ops.roi_pool(features, rois[-1:], (2, 3), 0.25).any()


@pytest.mark.parametrize('ratio', [0, 2])
def test_deform_roi_pool_equals_the_loop(ratio):
    features, rois = random_input(seed=9, channels=2)
    offset = torch.randn(6, 2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    actual = ops.deform_roi_pool(features, rois, offset, (2, 3), 0.25, ratio, 0.1)
    equal(actual, naive_deform_roi_pool(features, rois, offset, (2, 3), 0.25, ratio, 0.1))


@pytest.mark.parametrize('pieces', [False, True])
def test_deform_roi_pool_without_offset_is_roi_align(monkeypatch, pieces):
    from pit_downstream.det.mmcv_ops import kernel
    if pieces:
        monkeypatch.setattr(kernel, 'CHUNK_VALUES', 1)
    features, rois = random_input(seed=10)
    features.requires_grad_()
    grad_output = torch.randn(6, 3, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torchvision.ops.roi_align(features, rois, (3, 2), 0.25, 0, True)
    actual = ops.deform_roi_pool(features, rois, None, (3, 2), 0.25)
    equal(actual, expected)
    equal(gradients(actual, grad_output, features)[0], gradients(expected, grad_output, features)[0])


def test_deform_roi_pool_gradcheck():
    features, rois = random_input(seed=11, channels=1, size=(5, 6))
    offset = torch.randn(6, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda f, o: ops.deform_roi_pool(f, rois, o, (2, 2), 0.25, 2, 0.1),
                                    (features.requires_grad_(), offset.requires_grad_()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_roi_align_on_the_gpu_equals_the_cpu(mode):
    features, rois = random_input(seed=12)
    expected = ops.roi_align(features, rois, (3, 2), 0.25, 0, mode)
    actual = ops.roi_align(features.cuda(), rois.cuda(), (3, 2), 0.25, 0, mode)
    assert actual.is_cuda
    equal(actual.cpu(), expected)
