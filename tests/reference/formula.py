"""Weights and inputs by formula, for which the official models' outputs are kept beside this file as npz."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
SHAPES = json.loads((HERE / 'state_dict_shapes.json').read_text())  # model -> parameter name -> shape, official code


def weights(shapes):
    """{name: shape} -> {name: float32 tensor}, every value a function of the name alone."""
    return {name: torch.from_numpy(_weight(name, tuple(shape))) for name, shape in shapes.items()}


def images(side=224):
    noise = np.random.RandomState(0).standard_normal((2, 3, side, side))
    return torch.from_numpy(noise.astype(np.float32))


def expected(model):
    """What the official code computed: {'logits': ..., 'stage0': ...} as tensors."""
    with np.load(HERE / f'{model}.npz') as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def _weight(name, shape):
    if name.endswith('num_batches_tracked'):
        return np.zeros(shape, np.int64)
    z = np.random.RandomState(zlib.crc32(name.encode()) & 0x7fffffff).standard_normal(shape).astype(np.float32)
    if name.endswith('running_var'):
        value = 1 + 0.1 * np.abs(z)
    elif name.endswith('running_mean'):
        value = 0.1 * z
    elif len(shape) == 1:
        value = 1 + 0.1 * z if name.endswith('weight') else 0.05 * z
    elif name in ('pos_embed', 'cls_token'):
        value = 0.02 * z
    else:
        value = z / np.sqrt(np.prod(shape[1:]))
    return value.astype(np.float32)
