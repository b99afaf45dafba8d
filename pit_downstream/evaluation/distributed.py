"""Distributed evaluation: under torchrun or srun, each process evaluates its shard of the samples."""

import itertools
import os
import socket
import sys
import time
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.slurm import get_env_world_size, get_step_env

T = TypeVar('T')

_stores: list[dist.Store] = []  # keeps the store alive, which rank 0 serves to the others
_flags = itertools.count()

PATIENCE = timedelta(days=7)  # ranks synchronize only at the end of a pass, where a fast rank waits long


def init_distributed(device: str) -> torch.device:
    """Initialize the process group under torchrun or srun, and return the device of this process.

    With several processes on GPUs, each has a separate GPU. See `device_of` and `rank_env`.

    Raises:
        InputError: There are more processes than GPUs, or `device` is one GPU for several processes.
    """
    chosen = device_of(device)
    if get_env_world_size() > 1 or is_distributed():
        if chosen.index is not None:
            raise InputError(f'expected --device {chosen.type} for several processes, got {device}; each takes the GPU '
                             'of its rank')
        if not is_distributed():
            rank_env(gpus=chosen.type == 'cuda')
            dist.init_process_group('nccl' if chosen.type == 'cuda' else 'gloo', timeout=PATIENCE)
        if chosen.type == 'cuda':
            chosen = torch.device('cuda', int(os.environ['LOCAL_RANK']))
    if chosen.type == 'cuda' and chosen.index is not None:
        torch.cuda.set_device(chosen)  # for kernels and libraries without a device argument
    return chosen


def rank_env(*, gpus: bool) -> None:
    """Set the environment variables of torch.distributed, from torchrun's or srun's.

    With `gpus`, LOCAL_RANK becomes the index of this process's GPU. Tasks that Slurm binds to separate GPUs each count
    from 0.

    Raises:
        InputError: On every rank, if variables are missing, two processes would share a GPU, or the tasks of a Slurm
            step run different commands.
    """
    by_slurm = get_step_env()
    os.environ.update(by_slurm)
    missing = [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT') if name not in os.environ]
    if missing:
        raise InputError(f'expected {", ".join(missing)} in the environment of several processes; start them with '
                         'torchrun or srun, or unset WORLD_SIZE for one')
    place = 'cpu'
    if gpus:
        index = int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()
        os.environ['LOCAL_RANK'] = str(index)
        place = f'GPU {torch.cuda.get_device_properties(index).uuid} of {socket.gethostname()}'
    places, commands = zip(*_exchange((place, ' '.join(sys.argv) if by_slurm else '')), strict=True)
    shared = [one for one in dict.fromkeys(places) if gpus and places.count(one) > 1]
    if shared:
        raise InputError(f'expected a GPU for each process, got {places.count(shared[0])} processes on {shared[0]}; '
                         'start fewer, or run with --device cpu')
    if len(set(commands)) > 1:
        raise InputError(f'expected one command in all {len(commands)} tasks of the Slurm step, which share its work, '
                         'got several; for separate runs unset SLURM_STEP_NUM_TASKS in each task')


def _exchange(item: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Gather the items of all ranks, before there is a process group."""
    store, rank, world = next(dist.rendezvous('env://', timeout=timedelta(minutes=30)))
    _stores.append(store)
    store = dist.PrefixStore('pit_downstream', store)
    store.set(str(rank), '\0'.join(item))
    found = [tuple(store.get(str(other)).decode().split('\0')) for other in range(world)]
    store.add('read', 1)
    if rank == 0:  # rank 0 serves the store and must not exit first
        while store.add('read', 0) < world:
            time.sleep(0.01)
    return found


def device_of(device: str) -> torch.device:
    """Return the device. 'auto' is a GPU if available. Raises InputError for an unavailable device."""
    kind = ('cuda' if torch.cuda.is_available() else 'cpu') if device == 'auto' else device
    try:
        chosen = torch.device(kind)
    except RuntimeError as error:
        raise InputError(f"expected a device like cpu, cuda or cuda:1, got {device!r}") from error
    if chosen.type not in ('cpu', 'cuda'):
        raise InputError(f'expected a device like cpu, cuda or cuda:1, got {device!r}, on which nothing here was tried')
    if chosen.type == 'cuda' and not torch.cuda.is_available():
        raise InputError(f'expected a GPU for {device}, torch finds none here; run with --device cpu')
    if chosen.type == 'cuda' and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f'expected one of the {torch.cuda.device_count()} GPUs here, got {device!r}; the first is '
                         'cuda:0')
    return chosen


def destroy_distributed() -> None:
    if is_distributed():
        dist.destroy_process_group()


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if is_distributed() else 0


def world() -> int:
    return dist.get_world_size() if is_distributed() else 1


def shard_indices(count: int, size: int = 1) -> list[int]:
    """Return this rank's share of the indices of `count` items, in round-robin blocks of `size`."""
    starts = range(rank() * size, count, world() * size)
    return [index for start in starts for index in range(start, min(start + size, count))]


def all_gather(items: list[T]) -> list[T]:
    """Return the items of all ranks, in rank order, on each rank."""
    if not is_distributed():
        return items
    parts: list = [None] * world()
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def raise_on_all_ranks(refusal: ValueError | None) -> None:
    """Raise on every rank if any rank has an error. Collective. Ranks without an error raise the first one."""
    refusals = all_gather([] if refusal is None else [refusal])
    if refusals:
        raise refusals[0] if refusal is None else refusal


class FailureFlag:
    """Flag that a rank sets when it ends with an error, so that the others stop before their next block.

    Create it on all ranks in the same order: each flag has a key of the store.
    """

    def __init__(self) -> None:
        self._key = f'failed/{next(_flags)}'
        self._store = dist.PrefixStore('pit_downstream', _stores[-1]) if _stores and is_distributed() else None

    def set(self) -> None:
        if self._store is not None:
            self._store.set(self._key, '1')

    def is_set(self) -> bool:
        """Return whether any rank has set the flag."""
        return self._store is not None and self._store.check([self._key])


def broadcast(item: T | None) -> T:
    """Return rank 0's item on every rank. The other ranks pass any item, such as None."""
    box = [item]
    if is_distributed():
        dist.broadcast_object_list(box)
    return cast(T, box[0])
