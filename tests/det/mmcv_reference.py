"""Installs the substitutes and reads what mmcv 2.1.0 with compiled CPU ops computed (tests/reference/mmcv_ops.npz)."""
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pit_downstream.det.mmcv_ops import install

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
    """Agreement to 1e-5 in float32 and 1e-10 in float64, absolute and relative."""
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-10}.get(expected.dtype, 0)
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
