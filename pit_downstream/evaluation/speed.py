"""How long a forward pass takes, and how much memory it needs, as measured here and now."""

import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

WARM_UP = 3  # passes before the first that counts
STATUS, RESET = Path('/proc/self/status'), Path('/proc/self/clear_refs')


@dataclass(frozen=True)
class Timing:
    """Seconds of every pass over a batch of so many images."""

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
    """Peak bytes of a pass, or None where they cannot be measured, and what they are."""

    peak: int | None
    what: str

    def __str__(self) -> str:
        return self.what if self.peak is None else f'{self.peak / 2 ** 20:.0f} MiB, {self.what}'


def timing(run: Callable[[], Any], batch: int, *, device: torch.device, repeats: int = 10) -> Timing:
    """Time `run`, a pass over `batch` images, `repeats` times after WARM_UP passes; waits for a GPU's work.

    Raises ValueError for fewer than one repeat.
    """
    if repeats < 1:
        raise ValueError(f'expected one repeat or more to time, got {repeats}')
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
    """Peak memory of one pass, weights included on a GPU: torch's own count there, the kernel's on Linux."""
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return Memory(torch.cuda.max_memory_allocated(device), "torch's peak allocation, weights included")
    if device.type != 'cpu' or not RESET.exists():
        run()
        return Memory(None, 'not measured: only on a GPU and on Linux')
    _hand_back()
    RESET.write_text('5')  # the peak becomes what is resident now (proc(5))
    before = _resident('VmRSS')
    run()
    return Memory(_resident('VmHWM') - before, "growth of the process's resident memory in its first pass, weights not "
                  'included')


def _hand_back() -> None:
    """Give the system what glibc keeps of freed memory: a pass that takes from there would seem to need none."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)


def _resident(name: str) -> int:
    """Bytes of a line of the process's status, which the kernel gives in kB."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f'{name}:'))
    return 1024 * int(line.split()[1])
