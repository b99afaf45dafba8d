"""Deformable convolution and attention, focal losses, CARAFE, masked convolution: mmcv's values, loops, gradcheck."""
import math

import pytest
import torch
import torch.nn.functional as F
import torchvision

from tests.det.mmcv_reference import equal, gradients, reference

from mmcv import ops  # isort: skip  (after install)
from mmcv.ops.multi_scale_deform_attn import (MultiScaleDeformableAttnFunction,  # isort: skip
                                              multi_scale_deformable_attn_pytorch)
from tests.tolerances import assert_near

pytestmark = pytest.mark.numeric

LOW_PRECISION = [torch.float16, torch.bfloat16]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dcn(*names: str) -> list[torch.Tensor]:
    return [reference(f'dcn_{name}').requires_grad_() for name in names]


# deformable convolution

def test_deform_conv_equals_compiled_mmcv():
    inputs = dcn('x', 'offset', 'w')
    output = ops.deform_conv2d(*inputs, 1, 1, 1, 2, 2)
    equal(output, reference('dcnv1'))
    for index, grad in enumerate(gradients(output, reference('dcn_grad_out'), *inputs)):
        equal(grad, reference(f'dcnv1_grad{index}'))


def test_modulated_deform_conv_equals_compiled_mmcv():
    inputs = dcn('x', 'offset', 'mask', 'w', 'bias')
    output = ops.modulated_deform_conv2d(*inputs, 1, 1, 1, 2, 2)
    equal(output, reference('dcnv2'))
    for index, grad in enumerate(gradients(output, reference('dcn_grad_out'), *inputs)):
        equal(grad, reference(f'dcnv2_grad{index}'))


def test_only_the_weight_of_a_deform_conv_may_need_a_gradient():
    x, offset, weight = dcn('x', 'offset', 'w')
    output = ops.deform_conv2d(x.detach(), offset.detach(), weight, 1, 1, 1, 2, 2)
    equal(gradients(output, reference('dcn_grad_out'), weight)[0], reference('dcnv1_grad2'))


@pytest.mark.parametrize('stride, padding, dilation', [((2, 1), (1, 2), (1, 2)), (1, (0, 1), 1)])
def test_deform_convs_with_zero_offset_are_convolutions(stride, padding, dilation):
    x, weight, bias = randn(2, 4, 9, 12), randn(6, 2, 3, 2, seed=1), randn(6, seed=2)
    expected = F.conv2d(x, weight, bias, stride, padding, dilation, groups=2)
    offset = x.new_zeros(2, 2 * 6, *expected.shape[-2:])
    mask = x.new_ones(2, 6, *expected.shape[-2:])
    equal(ops.modulated_deform_conv2d(x, offset, mask, weight, bias, stride, padding, dilation, 2), expected)
    equal(ops.deform_conv2d(x, offset, weight, stride, padding, dilation, 2), expected - bias[:, None, None])


def test_deform_conv_gradcheck():
    inputs = randn(1, 2, 4, 5), randn(1, 8, 3, 4, seed=1), randn(3, 2, 2, 2, seed=2)
    assert torch.autograd.gradcheck(ops.deform_conv2d, [tensor.requires_grad_() for tensor in inputs])


@pytest.mark.parametrize('with_bias', [False, True])
def test_modulated_deform_conv_gradcheck(with_bias):
    inputs = [randn(1, 2, 4, 5), randn(1, 8, 3, 4, seed=1), randn(1, 4, 3, 4, seed=2), randn(3, 2, 2, 2, seed=3)]
    inputs += [randn(3, seed=4)] if with_bias else []
    assert torch.autograd.gradcheck(ops.modulated_deform_conv2d, [tensor.requires_grad_() for tensor in inputs])


@pytest.mark.parametrize('dtype', LOW_PRECISION)
def test_deform_conv_keeps_the_dtype_of_its_offset(dtype):
    x, offset, weight = (tensor.detach().to(dtype) for tensor in dcn('x', 'offset', 'w'))
    output = ops.deform_conv2d(x, offset, weight, 1, 1, 1, 2, 2)
    assert output.dtype == dtype
    expected = ops.deform_conv2d(x.float(), offset.float(), weight.float(), 1, 1, 1, 2, 2)
    assert_near(output, expected, 'layer')


def test_too_large_offsets_are_read_as_memory():
    """DyHead: mmcv walks the offsets of one image with the strides of the output, whatever their own size."""
    x, weight = randn(2, 2, 5, 6), randn(3, 2, 3, 3, seed=1)
    offset, mask = randn(2, 18, 10, 12, seed=2).requires_grad_(), randn(2, 9, 10, 12, seed=3).requires_grad_()

    def walked(tensor):  # image by image, element [c, h, w] at c * 5 * 6 + h * 6 + w
        index = torch.arange(tensor.shape[1] * 30).view(-1, 5, 6)
        return torch.stack([image.reshape(-1)[index] for image in tensor])

    actual = ops.modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1)
    expected = torchvision.ops.deform_conv2d(x, walked(offset), weight, padding=1, mask=walked(mask))
    equal(actual, expected)
    grad_output = randn(*actual.shape, seed=4)
    for a, b in zip(gradients(actual, grad_output, offset, mask), gradients(expected, grad_output, offset, mask)):
        equal(a, b)


def test_too_small_offsets_are_refused():
    x, weight = randn(1, 2, 5, 6), randn(3, 2, 3, 3)
    with pytest.raises(ValueError, match=r'at least as large as its output \(5, 6\), got \(5, 5\)'):
        ops.modulated_deform_conv2d(x, randn(1, 18, 5, 5), randn(1, 9, 5, 5), weight, None, 1, 1)


# deformable attention

def attention_inputs() -> list[torch.Tensor]:
    return [reference(f'msda_{name}') for name in ('value', 'shapes', 'start', 'loc', 'weights')]


def test_ms_deform_attn_equals_mmcv():
    value, shapes, start, locations, weights = attention_inputs()
    wanted = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    output = MultiScaleDeformableAttnFunction.apply(value, shapes, start, locations, weights, 64)
    equal(output, reference('msda'))
    for index, grad in enumerate(gradients(output, reference('msda_grad_out'), *wanted)):
        equal(grad, reference(f'msda_grad{index}'))


def test_ms_deform_attn_gradcheck():
    shapes, start = torch.tensor([[3, 4], [2, 2]]), torch.tensor([0, 12])
    locations = torch.rand(1, 2, 2, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    inputs = [randn(1, 16, 2, 2), locations * 1.4 - 0.2, randn(1, 2, 2, 2, 2, seed=1)]  # some points outside
    assert torch.autograd.gradcheck(
        lambda values, places, weights: MultiScaleDeformableAttnFunction.apply(
            values, shapes, start, places, weights, 64),
        [tensor.requires_grad_() for tensor in inputs])


@pytest.mark.parametrize('dtype', LOW_PRECISION)
def test_ms_deform_attn_keeps_the_dtype_of_its_value(dtype):
    value, shapes, start, locations, weights = attention_inputs()
    value = value.to(dtype).requires_grad_()
    output = MultiScaleDeformableAttnFunction.apply(value, shapes, start, locations, weights, 64)
    assert output.dtype == dtype
    expected = multi_scale_deformable_attn_pytorch(
        value.float(), shapes, locations.to(dtype).float(), weights.to(dtype).float())
    assert_near(output, expected, 'layer')
    assert gradients(output, torch.ones_like(output), value)[0].dtype == dtype


def test_autocast_does_not_reach_into_an_op():
    value, shapes, start, locations, weights = attention_inputs()
    plain = MultiScaleDeformableAttnFunction.apply(value.float(), shapes, start, locations, weights, 64)
    with torch.autocast('cpu', torch.bfloat16):
        inside = MultiScaleDeformableAttnFunction.apply(value.float(), shapes, start, locations, weights, 64)
    assert inside.dtype == torch.float32 and torch.equal(inside, plain)


# focal losses

TARGET = torch.tensor([0, 3, 5, 2, 1, 5])  # 5 classes: 5 is mmdet's background


def naive_sigmoid_focal(logits, target, gamma, alpha, weight):
    loss = torch.zeros_like(logits)
    for n, row in enumerate(logits.tolist()):
        for k, logit in enumerate(row):
            p = 1 / (1 + math.exp(-logit))
            own = target[n] == k
            loss[n, k] = -alpha * (1 - p)**gamma * math.log(p) if own else -(1 - alpha) * p**gamma * math.log(1 - p)
            if weight is not None and target[n] < len(weight):
                loss[n, k] *= weight[target[n]]
    return loss


@pytest.mark.parametrize('gamma', [2.0, 1.5, 0.0])
@pytest.mark.parametrize('weighted', [False, True])
def test_sigmoid_focal_loss_equals_the_formula(gamma, weighted):
    logits, weight = randn(6, 5) * 3, torch.rand(5, dtype=torch.float64) if weighted else None
    actual = ops.sigmoid_focal_loss(logits, TARGET, gamma, 0.3, weight, 'none')
    expected = naive_sigmoid_focal(logits, TARGET.tolist(), gamma, 0.3, weight)
    equal(actual, expected)
    equal(ops.sigmoid_focal_loss(logits, TARGET, gamma, 0.3, weight, 'sum'), expected.sum())
    equal(ops.sigmoid_focal_loss(logits, TARGET, gamma, 0.3, weight, 'mean'), expected.sum() / 6)


def test_sigmoid_focal_loss_equals_torchvision_at_large_logits():
    logits = torch.tensor([[-120.0, -20, 0, 20, 120]]).repeat(6, 1).requires_grad_()
    hot = F.one_hot(TARGET, 6)[:, :5].float()
    expected = torchvision.ops.sigmoid_focal_loss(logits, hot, 0.25, 2.0)
    actual = ops.sigmoid_focal_loss(logits, TARGET, 2.0, 0.25, None, 'none')
    equal(actual, expected)
    ones = torch.ones_like(logits)
    equal(gradients(actual, ones, logits)[0], gradients(expected, ones, logits)[0])


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_sigmoid_focal_loss_gradcheck(reduction, weighted):
    weight = torch.rand(5, dtype=torch.float64) if weighted else None
    assert torch.autograd.gradcheck(lambda x: ops.sigmoid_focal_loss(x, TARGET[1:4], 2.0, 0.25, weight, reduction),
                                    randn(3, 5).requires_grad_())


@pytest.mark.parametrize('gamma', [2.0, 1.5, 0.0])
@pytest.mark.parametrize('weighted', [False, True])
def test_softmax_focal_loss_equals_the_formula(gamma, weighted):
    logits, weight = randn(6, 5) * 3, torch.rand(5, dtype=torch.float64) if weighted else None
    target = torch.tensor([0, 3, -1, 2, 1, 4])  # -1 is ignored
    expected = []
    for row, label in zip(logits.tolist(), target.tolist()):
        p = math.exp(row[label]) / sum(map(math.exp, row))
        scale = weight[label].item() if weighted else 1.0
        expected.append(-0.3 * (1 - p)**gamma * math.log(p) * scale if label >= 0 else 0.0)
    expected = torch.tensor(expected, dtype=torch.float64)
    equal(ops.softmax_focal_loss(logits, target, gamma, 0.3, weight, 'none'), expected)
    equal(ops.softmax_focal_loss(logits, target, gamma, 0.3, weight, 'mean'), expected.sum() / 6)
    assert torch.autograd.gradcheck(lambda x: ops.softmax_focal_loss(x, target, gamma, 0.3, weight, 'sum'),
                                    logits.requires_grad_())


def test_softmax_focal_loss_is_finite_at_certainty():
    logits = torch.tensor([[200.0, 0, 0], [0, 200, 0]], requires_grad=True)
    for gamma in (0.0, 0.5, 2.0):
        loss = ops.softmax_focal_loss(logits, torch.tensor([0, 0]), gamma, 0.25, None, 'sum')
        assert loss.isfinite() and gradients(loss, torch.ones_like(loss), logits)[0].isfinite().all()


# CARAFE and masked convolution

@pytest.mark.parametrize('name', ['carafe', 'carafe_naive'])
@pytest.mark.parametrize('kernel, groups, scale', [(3, 1, 2), (5, 2, 3), (1, 2, 1)])
def test_carafe_equals_the_loop(name, kernel, groups, scale):
    features, masks = randn(2, 4, 3, 5), randn(2, groups * kernel**2, 3 * scale, 5 * scale, seed=1)
    expected = features.new_zeros(2, 4, 3 * scale, 5 * scale)
    padded = F.pad(features, [kernel // 2] * 4)
    for c in range(4):
        group = masks[:, c // (4 // groups) * kernel**2:][:, :kernel**2]
        for y in range(3 * scale):
            for x in range(5 * scale):
                window = padded[:, c, y // scale:y // scale + kernel, x // scale:x // scale + kernel]
                expected[:, c, y, x] = (window.flatten(1) * group[:, :, y, x]).sum(1)
    equal(getattr(ops, name)(features, masks, kernel, groups, scale), expected)


def test_carafe_gradcheck():
    inputs = randn(1, 2, 2, 3).requires_grad_(), randn(1, 18, 4, 6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda f, m: ops.carafe(f, m, 3, 2, 2), inputs)


@pytest.mark.parametrize('kernel, padding', [((3, 3), (1, 1)), ((3, 5), (1, 2))])
def test_masked_conv_is_the_convolution_at_the_masked_pixels(kernel, padding):
    features, weight, bias = randn(1, 3, 6, 7), randn(4, 3, *kernel, seed=1), randn(4, seed=2)
    mask = randn(1, 6, 7, seed=3) > 0
    expected = F.conv2d(features, weight, bias, padding=padding) * mask[:, None]
    equal(ops.masked_conv2d(features, mask, weight, bias, padding), expected)
    assert not ops.masked_conv2d(features, torch.zeros_like(mask), weight, bias, padding).any()


@pytest.mark.parametrize('mode, dim, backwards', [('top', 2, True), ('bottom', 2, False), ('left', 3, True),
                                                  ('right', 3, False)])
def test_corner_pool_needs_no_extension(mode, dim, backwards):
    x = randn(1, 2, 4, 5)
    line = list(x.unbind(dim))[::-1 if backwards else 1]
    pooled = [torch.stack(line[:count + 1]).amax(0) for count in range(len(line))]
    equal(ops.CornerPool(mode)(x), torch.stack(pooled[::-1 if backwards else 1], dim))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_ms_deform_attn_on_the_gpu_equals_mmcv():
    inputs = [tensor.cuda() for tensor in attention_inputs()]
    equal(MultiScaleDeformableAttnFunction.apply(*inputs, 64).cpu(), reference('msda'))
