"""Time and memory of a forward pass, measured on this machine."""

import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pit_downstream.utils.errors import InputError

WARM_UP = 3  # passes before the timed ones
STATUS, RESET = Path('/proc/self/status'), Path('/proc/self/clear_refs')


@dataclass(frozen=True)
class Timing:
    """Seconds of each pass over a batch of `batch` images."""

    batch: int
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def throughput(self) -> float:
        """Images per second, at the median."""
        return self.batch / self.median

    def __str__(self) -> str:
        low, high = (f'{1e3 * bound:.1f}' for bound in (min(self.seconds), max(self.seconds)))
        return (f'{1e3 * self.median:.1f} ms ({low} to {high}, median of {len(self.seconds)}), '
                f'{self.throughput:.1f} images/s, batch {self.batch}')


@dataclass(frozen=True)
class Memory:
    """Peak bytes of a pass, None if not measurable, with a description in `what`."""

    peak: int | None
    what: str

    def __str__(self) -> str:
        return self.what if self.peak is None else f'{self.peak / 2 ** 20:.0f} MiB, {self.what}'


def timing(run: Callable[[], Any], batch: int, *, device: torch.device, repeats: int = 10) -> Timing:
    """Time `run`, a pass over `batch` images, `repeats` times after WARM_UP passes, synchronized on a GPU.

    Raises InputError for fewer than one repeat.
    """
    if repeats < 1:
        raise InputError(f'expected one repeat or more to time, got {repeats}')
    for _ in range(WARM_UP):
        run()
    return Timing(batch, tuple(_seconds(run, device) for _ in range(repeats)))


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def peak_memory(run: Callable[[], Any], device: torch.device) -> Memory:
    """Measure the peak memory of one pass: torch's count on a GPU, weights included, the kernel's count on Linux."""
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return Memory(torch.cuda.max_memory_allocated(device), "torch's peak allocation, weights included")
    if device.type != 'cpu' or not RESET.exists():
        run()
        return Memory(None, 'not measured: only on a GPU and on Linux')
    _hand_back()
    RESET.write_text('5')  # reset the peak to the current resident size (proc(5))
    before = _resident('VmRSS')
    run()
    return Memory(_resident('VmHWM') - before, "growth of the process's resident memory in its first pass, weights not "
                  'included')


def _hand_back() -> None:
    """Return glibc's freed memory to the system, as a pass that reuses it would seem to need none."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)


def _resident(name: str) -> int:
    """Return a value of the process status in bytes, which the kernel gives in kB."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f'{name}:'))
    return 1024 * int(line.split()[1])
