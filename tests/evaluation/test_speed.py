"""Time and memory as measured: known waits, known allocations."""

import sys
import time

import pytest
import torch

from pit_downstream.evaluation import speed

CPU = torch.device('cpu')


def test_every_repeat_is_timed_after_the_warm_up():
    calls = []

    def run():
        calls.append(time.sleep(0.002))
    found = speed.timing(run, 4, device=CPU, repeats=5)
    assert len(found.seconds) == 5 and len(calls) == 5 + speed.WARM_UP
    assert min(found.seconds) >= 0.002 and found.throughput == 4 / found.median
    assert 'median of 5' in str(found) and 'batch 4' in str(found)


def test_no_repeat_is_refused():
    with pytest.raises(ValueError, match='expected one repeat or more to time, got 0'):
        speed.timing(lambda: None, 1, device=CPU, repeats=0)


@pytest.mark.skipif(sys.platform != 'linux', reason='the peak is known on Linux alone')
def test_the_peak_of_a_cpu_is_what_was_written_and_freed():
    size = 64 * 2 ** 20
    torch.zeros(2 * size, dtype=torch.uint8).fill_(1)  # an earlier, higher peak must not count
    found = speed.peak_memory(lambda: torch.empty(size, dtype=torch.uint8).fill_(1), CPU)
    assert 0.98 * size < found.peak < 1.25 * size and 'resident' in found.what  # the kernel counts pages in batches
    assert f'{found.peak / 2 ** 20:.0f} MiB' in str(found)


def test_unmeasurable_condition_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(speed, 'RESET', tmp_path / 'none')
    found = speed.peak_memory(lambda: None, CPU)
    assert found.peak is None and str(found).startswith('not measured')


@pytest.mark.gpu
def test_the_peak_of_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip('no GPU here')
    size = 64 * 2 ** 20
    found = speed.peak_memory(lambda: torch.empty(size, dtype=torch.uint8, device='cuda'), torch.device('cuda'))
    assert found.peak >= size
