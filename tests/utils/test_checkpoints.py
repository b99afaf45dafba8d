"""The digest of tensors: what it depends on, and what not."""

import hashlib
import struct

import pytest
import torch

from pit_downstream.utils.checkpoints import hash_tensors

STATE = {'b': torch.tensor([[1., 2., 3.]]), 'a': torch.tensor(7)}


def test_digest_by_hand():
    lines = b'a\0torch.int64\0()\0' + struct.pack('<q', 7) + b'b\0torch.float32\0(1, 3)\0' + struct.pack('<3f', 1, 2, 3)
    assert hash_tensors(STATE) == hashlib.sha256(lines).hexdigest()[:16]


def test_order_and_memory_layout_do_not_count():
    strided = {'a': STATE['a'], 'b': torch.tensor([[1.], [2.], [3.]]).T}
    assert hash_tensors(strided) == hash_tensors(dict(reversed(STATE.items()))) == hash_tensors(STATE)
    assert hash_tensors({'a': STATE['a'], 'b': STATE['b'].requires_grad_()}) == hash_tensors(STATE)


@pytest.mark.parametrize('change', [{'b': torch.tensor([[1., 2., 3.0000002]])}, {'b': torch.tensor([1., 2., 3.])},
                                    {'b': STATE['b'].double()}, {'a': torch.tensor(8)}, {'c': torch.zeros(0)}])
def test_values_shapes_types_and_names_count(change):
    assert hash_tensors({**STATE, **change}) != hash_tensors(STATE)
    assert hash_tensors({'x': STATE['a'], 'b': STATE['b']}) != hash_tensors(STATE)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.bool, torch.uint8, torch.complex64])
def test_every_type_has_a_digest(dtype):
    one, other = (torch.tensor(values).to(dtype) for values in ([0, 1, 1], [0, 1, 0]))
    assert hash_tensors({'x': one}) == hash_tensors({'x': one.clone()}) != hash_tensors({'x': other})


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')
def test_device_does_not_count():
    assert hash_tensors({name: value.cuda() for name, value in STATE.items()}) == hash_tensors(STATE)
