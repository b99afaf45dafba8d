"""Shared parts of the benchmark scripts: flags, alternating timings, separate processes, rows of the table."""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from pit_downstream.utils.provenance import get_commit, get_versions
from speed.table import HERE, QUICK, Comparison, Entry, Run, add_to_table

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
LIBRARIES = ('torchvision', 'timm', 'numpy', 'mmengine', 'mmdet', 'imagecorruptions', 'torchattacks')


def bench_parser(description: str | None) -> argparse.ArgumentParser:
    """Build a parser with the flags of every script in this folder."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--quick', action='store_true', help='small and short, to check that it runs; adds its rows to '
                        'work_dirs/bench/results.csv, not to speed/results.csv')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    return parser


def current_run() -> Run:
    """Return date, commit, load, machine and libraries of this process."""
    machine = {
        'device': torch.cuda.get_device_name() if DEVICE == 'cuda' else platform.machine(), 'cpu': processor(),
        'cores': os.cpu_count(), 'python': platform.python_version(), 'torch': torch.__version__,
        **get_versions(LIBRARIES)}
    return Run(datetime.now(timezone.utc).date().isoformat(), get_commit(), torch.get_num_threads(),
               round(os.getloadavg()[0], 2), machine)


def processor() -> str:
    """Return the CPU's name if the system reports it, else its architecture."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')), platform.machine())


def record(benchmark: str, results: Iterable[Comparison], *, quick: bool = False) -> None:
    """Print the results of this run and add them to the table, or with `quick` to the one in work_dirs/bench."""
    run = current_run()
    entries = [Entry(benchmark, result, run) for result in results]
    for result in (entry.result for entry in entries):
        peer = f', {result.peer} {result.theirs.median:.4g} {result.unit}' if result.theirs else ''
        ratio = f', ratio {result.ratio:.2f}' if result.ratio else ''
        print(f'{result.case}, {result.setting}, {result.metric}: {result.ours.median:.4g} {result.unit}{peer}{ratio}',
              flush=True)
    print(add_to_table(entries, QUICK if quick else HERE), flush=True)


def seconds(work: Callable[[], Any]) -> float:
    """Measure the wall time of `work`, including the device's."""
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def synchronize() -> None:
    if DEVICE == 'cuda':
        torch.cuda.synchronize()


def time_sides(sides: Mapping[str, Callable[[], Any]], repeat: int, *,
               clock: Callable[[Callable[[], Any]], float] = seconds) -> dict[str, list[float]]:
    """Time each side `repeat` times after a warm-up pass. Sides alternate, so that a load spike affects all."""
    for work in sides.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeat):
        for name, work in sides.items():
            times[name].append(clock(work))
    return times


def peak_bytes() -> int:
    """Return the peak memory of this process: torch's allocation on a GPU, resident memory on a CPU."""
    if DEVICE == 'cuda':
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_separately(module: str, *args: object) -> dict:
    """Run `python -m speed.MODULE ARGS` and return the JSON in its last line."""
    command = [sys.executable, '-m', f'speed.{module}', *map(str, args)]
    done = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])
