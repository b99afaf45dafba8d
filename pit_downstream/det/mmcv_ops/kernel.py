"""Common wrapper of the substituted ops: no autograd, no autocast, at least float32, bounded memory."""
from functools import wraps
from typing import ParamSpec, TypeVar
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

P = ParamSpec('P')
R = TypeVar('R')

CHUNK_VALUES = 2**24  # values per intermediate tensor, 64 MiB in float32; a choice, not a measured optimum


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap `function` to run as a compiled op: invisible to autograd and in the precision of its arguments."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)).device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            return function(*args, **kwargs)

    return run


def widen(tensor: Tensor) -> Tensor:
    """Convert float16 and bfloat16 to float32. float32 and float64 are unchanged."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def chunks(count: int, values_each: int) -> Iterator[slice]:
    """Yield slices of `count` items of `values_each` values, at most CHUNK_VALUES values but at least one item each."""
    step = max(1, CHUNK_VALUES // max(1, values_each))
    for start in range(0, count, step):
        yield slice(start, start + step)
