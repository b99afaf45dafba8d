"""Tensors of a checkpoint of any origin, and a digest that identifies them. Pure functions on dicts."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from pit_downstream.utils.errors import InputError

WRAPPERS = ('state_dict_ema', 'model_ema', 'state_dict', 'model')  # timm, DeiT, mmengine and DDP training scripts


def hash_tensors(state: Mapping[str, Tensor]) -> str:
    """Return a 16-digit hex digest of tensors: names, dtypes, shapes and bytes, independent of order and device."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f'{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0'.encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def extract_parameters(checkpoint: Mapping) -> dict[str, Tensor]:
    """Return the parameters of a training checkpoint: averaged (EMA) weights first, tensors only.

    An entry without tensors is skipped in favor of the next one. Raises InputError unless `checkpoint` is a dict.
    """
    if not isinstance(checkpoint, Mapping):
        raise InputError(f'expected a checkpoint with named tensors, got {type(checkpoint).__name__}; save a state '
                         'dict')
    for wrapper in WRAPPERS:
        if isinstance(checkpoint.get(wrapper), Mapping) and (state := extract_parameters(checkpoint[wrapper])):
            return state
    return {name: value for name, value in checkpoint.items() if isinstance(value, Tensor)}
