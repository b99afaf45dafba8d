"""Processes that share the work: under torchrun each takes its part of the samples."""

import os
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar('T')


def start_ranks(device: str) -> torch.device:
    """Join the processes that torchrun started, if it did, and return the device of this one: see `device_of`."""
    chosen = device_of(device)
    if int(os.environ.get('WORLD_SIZE', 1)) > 1 and not dist.is_initialized():
        if chosen.type == 'cuda':
            chosen = torch.device('cuda', int(os.environ.get('LOCAL_RANK', 0)))
            torch.cuda.set_device(chosen)
        # ranks meet at the end of a pass, which one may reach long before the others; torchrun ends them where one dies
        dist.init_process_group('nccl' if chosen.type == 'cuda' else 'gloo', timeout=timedelta(days=7))
    return chosen


def device_of(device: str) -> torch.device:
    """'auto' is a GPU where there is one. Raises ValueError for a device that is not there."""
    kind = ('cuda' if torch.cuda.is_available() else 'cpu') if device == 'auto' else device
    try:
        chosen = torch.device(kind)
    except RuntimeError as error:
        raise ValueError(f"expected a device like cpu, cuda or cuda:1, got {device!r}") from error
    if chosen.type not in ('cpu', 'cuda'):
        raise ValueError(f'expected a device like cpu, cuda or cuda:1, got {device!r}, on which nothing here was tried')
    if chosen.type == 'cuda' and not torch.cuda.is_available():
        raise ValueError(f'expected a GPU for {device}, torch finds none here; run with --device cpu')
    if chosen.type == 'cuda' and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f'expected one of the {torch.cuda.device_count()} GPUs here, got {device!r}; the first is '
                         'cuda:0')
    return chosen


def stop_ranks() -> None:
    if together():
        dist.destroy_process_group()


def together() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if together() else 0


def world() -> int:
    return dist.get_world_size() if together() else 1


def dealt(count: int, size: int = 1) -> list[int]:
    """Which of `count` items this rank takes, when blocks of `size` go round the ranks."""
    starts = range(rank() * size, count, world() * size)
    return [index for start in starts for index in range(start, min(start + size, count))]


def gathered(items: list[T]) -> list[T]:
    """The items of all ranks, in the order of the ranks, on each of them."""
    if not together():
        return items
    parts: list = [None] * world()
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def refuse_together(refusal: ValueError | None) -> None:
    """Raise on every rank what one of them has to refuse; a collective. The first rank that speaks is heard."""
    refusals = gathered([] if refusal is None else [refusal])
    if refusals:
        raise refusals[0] if refusal is None else refusal


def from_first(item: T) -> T:
    """What rank 0 has, on every rank."""
    if not together():
        return item
    box = [item]
    dist.broadcast_object_list(box)
    return box[0]
