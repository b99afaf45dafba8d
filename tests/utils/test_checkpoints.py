"""The digest of tensors: what it depends on, and what not."""

import hashlib
import struct

import pytest
import torch

from pit_downstream.utils.checkpoints import digest_tensors

STATE = {'b': torch.tensor([[1., 2., 3.]]), 'a': torch.tensor(7)}


def test_digest_by_hand():
    lines = b'a\0torch.int64\0()\0' + struct.pack('<q', 7) + b'b\0torch.float32\0(1, 3)\0' + struct.pack('<3f', 1, 2, 3)
    assert digest_tensors(STATE) == hashlib.sha256(lines).hexdigest()[:16]


def test_order_and_memory_layout_do_not_count():
    strided = {'a': STATE['a'], 'b': torch.tensor([[1.], [2.], [3.]]).T}
    assert digest_tensors(strided) == digest_tensors(dict(reversed(STATE.items()))) == digest_tensors(STATE)
    assert digest_tensors({'a': STATE['a'], 'b': STATE['b'].requires_grad_()}) == digest_tensors(STATE)


@pytest.mark.parametrize('change', [{'b': torch.tensor([[1., 2., 3.0000002]])}, {'b': torch.tensor([1., 2., 3.])},
                                    {'b': STATE['b'].double()}, {'a': torch.tensor(8)}, {'c': torch.zeros(0)}])
def test_values_shapes_types_and_names_count(change):
    assert digest_tensors({**STATE, **change}) != digest_tensors(STATE)
    assert digest_tensors({'x': STATE['a'], 'b': STATE['b']}) != digest_tensors(STATE)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.bool, torch.uint8, torch.complex64])
def test_every_type_has_a_digest(dtype):
    one, other = (torch.tensor(values).to(dtype) for values in ([0, 1, 1], [0, 1, 0]))
    assert digest_tensors({'x': one}) == digest_tensors({'x': one.clone()}) != digest_tensors({'x': other})


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')
def test_device_does_not_count():
    assert digest_tensors({name: value.cuda() for name, value in STATE.items()}) == digest_tensors(STATE)
