"""Environment of a measurement, alternating timings of its sides, and result files with both."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from speed.rows import HERE, QUICK, kept_rows
from pit_downstream.utils.provenance import commit, versions

LIBRARIES = ('torchvision', 'timm', 'numpy', 'mmengine', 'mmdet', 'imagecorruptions', 'torchattacks')


def environment() -> dict:
    """Return {'torch': ..., 'device': ..., 'threads': ..., 'commit': ...}; commit ends in '+' if files were changed."""
    cuda = torch.cuda.is_available()
    return {
        'python': platform.python_version(), 'torch': torch.__version__, 'versions': versions(LIBRARIES),
        'device': torch.cuda.get_device_name() if cuda else platform.machine(), 'cpu': processor(),
        'cores': os.cpu_count(), 'threads': torch.get_num_threads(), 'load': round(os.getloadavg()[0], 2),
        'commit': commit(),
    }


def processor() -> str:
    """Return the CPU's name if the system reports it, else its architecture."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')), platform.machine())


def bench_parser(description: str) -> argparse.ArgumentParser:
    """Build a parser with the flags of every script in this folder."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--quick', action='store_true', help='small and short, to see that it runs; written to '
                        'work_dirs/bench, not beside this file')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    return parser


def keep(name: str, rows: list[dict], *, quick: bool, **more: Any) -> Path:
    """Write the rows, each with the environment of this run, to NAME.json. Keep its rows of other devices."""
    here = environment()
    path = (QUICK if quick else HERE) / f'{name}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    others = [row for row in kept_rows(path) if row['environment']['device'] != here['device']]
    rows = [{**row, 'environment': here} for row in rows]
    path.write_text(json.dumps({'results': [*rows, *others], **more, 'environment': here}, indent=1) + '\n')
    return path


def seconds(work: Callable[[], Any]) -> float:
    """Measure the wall time of `work`, including the device's."""
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_turns(sides: Mapping[str, Callable[[], Any]], repeat: int) -> dict[str, list[float]]:
    """Measure `repeat` seconds per side after a warm-up pass. Sides alternate, so that a load spike affects all."""
    for work in sides.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeat):
        for name, work in sides.items():
            times[name].append(seconds(work))
    return times


def medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(one) for name, one in times.items()}
