"""A report of what `evaluate` wrote: a custom benchmark of two modules, with other arguments than its defaults."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pit_downstream as pit
from pit_downstream.benchmarks import Benchmark, Layout
from pit_downstream.report import page, sections
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.results import compare
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Spec
from tests.report.html_tables import Page


class Squares:
    """Twelve images of three classes."""

    name = 'squares'

    def __len__(self):
        return 12

    def __getitem__(self, index):
        array = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        return Image.fromarray(array), index % 3


class Net(nn.Module):
    def __init__(self, seed):
        super().__init__()
        self.head = nn.Linear(48, 3)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(3, 48, generator=torch.Generator().manual_seed(seed)))
            self.head.bias.zero_()

    def forward(self, images):
        return self.head(nn.functional.adaptive_avg_pool2d(images, 4).flatten(1))


@pytest.fixture
def haze(monkeypatch):
    monkeypatch.setattr(BENCHMARKS, '_entries', BENCHMARKS._entries.copy())

    @BENCHMARKS.register('haze')
    @dataclass(frozen=True)
    class Haze(Benchmark):
        name, title, layout = 'haze', 'Haze', Layout(rows='corruption', columns='severity')
        levels: tuple[int, ...] = (1, 2)

        def conditions(self):
            return (CLEAN, *(Condition(Spec.of('contrast', severity=level)) for level in self.levels))
    return Haze


def test_report_of_a_custom_benchmark(haze, tmp_path):
    results = []
    for seed, name in ((0, 'first'), (1, 'second')):
        module = pit.classifier(Net(seed), mean=(.5, .5, .5), std=(.5, .5, .5), img_size=32, name=name)
        results.append(pit.evaluate(module, haze(levels=(2, 5)), data=Squares(), output_dir=tmp_path, progress=False,
                                    argv=('pit-downstream evaluate', '--benchmark', 'haze', '--levels', '2', '5')))
    runs = [json.loads(line) for line in (tmp_path / 'runs.jsonl').read_text().splitlines()]
    assert [run['benchmark'] for run in runs] == ['haze(levels=(2, 5))'] * 2
    assert {record.benchmark for one in results for record in one.records} == {'haze'}
    report = sections.make_report([tmp_path])
    told = Page(page.render_page(report))
    for label, one in zip(('first', 'second'), results, strict=True):
        row = told.rows('haze_top1_error')[label, 'contrast']
        for level in (2, 5):
            assert row[f'severity {level}'].value == one.table[f'contrast(severity={level})', 'top1_error']
    assert not [gap for gap in report.gaps if 'contrast' in gap.what]
    paired = compare(*results).set_index(['condition', 'metric'])
    clean = told.rows('difference_haze_1')['clean', 'top1 accuracy', 'by image, 12']['difference']
    assert clean.value == paired.loc[('clean', 'top1_error'), 'difference']
    mean = told.rows('difference_haze_1')['contrast', 'top1 accuracy', 'by image, 12']['difference']
    assert mean.value == pytest.approx(np.mean([paired.loc[(f'contrast(severity={level})', 'top1_error'), 'difference']
                                                for level in (2, 5)]))
    (row,) = (row for key, row in told.rows('runs').items() if 'first' in key)
    assert row['benchmark'].text == 'haze(levels=(2, 5))'
