"""A custom benchmark of a few lines has a table, a summary, a command for its gaps, exports and a figure."""

import json
from dataclasses import dataclass

import pytest

from pit_downstream.benchmarks import Benchmark, Layout
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.intervals import Estimate, compute_wilson_interval
from pit_downstream.results.records import MissingMeasurement, Record, Table
from pit_downstream.results.results import Results
from pit_downstream.utils.registry import BENCHMARKS, Registry
from pit_downstream.utils.spec import Spec
from tests.results.builders import get_rows

EXAMPLES: Registry = Registry('benchmark')  # BENCHMARKS in a program


# --- the benchmark
@EXAMPLES.register('night')
@dataclass(frozen=True)
class Night(Benchmark):
    """Errors on dark images."""

    name, layout = 'night', Layout(rows='corruption', columns='severity')
    severities: tuple[int, ...] = (1, 3)

    def conditions(self):
        return (CLEAN, *(Condition(Spec.of('darkness', severity=severity)) for severity in self.severities))

    def summarize(self, results):
        results.table.require(self.required())
        return {'worst_error': Estimate(max(record.value for record in results.table.records))}
# ---


def results_of(**errors):
    conditions = {'clean': 'clean', 'first': 'darkness(severity=1)', 'third': 'darkness(severity=3)'}
    records = [Record('pit_s', 'data(images=40)', conditions[name], 'top1_error', error, 40, 0)
               for name, error in errors.items()]
    return Results(Night(), {'data': Table('pit_s', 'data(images=40)', records)},
                   argv=['pit-downstream evaluate', '--benchmark', 'night', '--import', 'mine', '--model', 'pit_s'])


WHOLE, PART = results_of(clean=.1, first=.2, third=.4), results_of(clean=.1, third=.4)


def test_definition_has_at_most_15_lines():
    text = open(__file__).read().split('# --- the benchmark\n')[1].split('# ---\n')[0]
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 15
    assert EXAMPLES['night'] is Night and 'night' not in BENCHMARKS


def test_table_and_summary():
    table, summary = WHOLE.sheets
    assert get_rows(table) == [['top1_error', '1', '3', 'mean'], ['clean', '', '', '0.1000'],
                               ['darkness', '0.2000', '0.4000', '0.3000']]
    assert get_rows(summary) == [['', 'value'], ['worst error', '0.4000']]
    assert WHOLE.summary == {'worst_error': Estimate(.4)} and WHOLE.gaps == []


def test_gap_has_the_command_of_the_run():
    command = 'pit-downstream evaluate --benchmark night --import mine --model pit_s'
    assert [(gap.what, gap.command) for gap in PART.gaps] == [('1 condition (darkness) not measured', command)]
    with pytest.raises(MissingMeasurement, match=rf'under darkness\(severity=1\)\. To measure it: {command}$'):
        _ = PART.summary
    assert get_rows(PART.sheets[0])[2] == ['darkness', '0.4000', '-'] and len(PART.sheets) == 1  # no mean of one
    assert f'1 condition (darkness) not measured. To measure it: {command}' in str(PART)


def test_exports_and_figure():
    content = json.loads(WHOLE.to_json())
    assert content['benchmark'] == 'night' and content['summary']['worst_error']['value'] == .4
    assert WHOLE.frame.low.tolist() == [compute_wilson_interval(error, 40)[0] for error in (.1, .2, .4)]
    assert r'\caption{top1\_error of pit\_s on data, 40 images' in WHOLE.to_latex()
    assert '| darkness' in WHOLE.to_markdown()
    axes, = WHOLE.plot().axes
    assert axes.containers[0].lines[0].get_ydata().tolist() == [20, 40]


def test_text_has_the_arguments_that_are_not_default():
    assert Night().text == 'night' and Night(severities=(2,)).text == 'night(severities=(2,))'
    spec = Spec.parse(Night(severities=(1, 5)).text)
    assert Night(**dict(spec.kwargs)) == Night(severities=(1, 5))
