"""Installs the substitutes and reads what mmcv 2.1.0 with compiled CPU ops computed (tests/reference/mmcv_ops.npz)."""
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pit_downstream.det.mmcv_ops import install
from tests.tolerances import assert_near

STATE = install()
SUBSTITUTED = STATE == 'substituted'
FILE = np.load(Path(__file__).parents[1] / 'reference' / 'mmcv_ops.npz')


def reference(name: str) -> Tensor:
    """One array of the file, with its dtype."""
    return torch.from_numpy(FILE[name])


def gradients(output: Tensor, grad_output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients of (output * grad_output).sum()."""
    return torch.autograd.grad(output, inputs, grad_output)


def equal(actual: Tensor, expected: Tensor) -> None:
    """Agreement to the rounding of one operation and its gradients; integers are equal."""
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    if expected.is_floating_point() and expected.numel():
        assert_near(actual, expected, 'block')
    else:
        assert torch.equal(actual, expected)
