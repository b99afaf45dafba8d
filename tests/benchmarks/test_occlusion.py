"""Occlusion, of values made by hand."""

import pytest

from pit_downstream.benchmarks.occlusion import Occlusion
from pit_downstream.evaluation.corrupting import check_corruption
from pit_downstream.results.records import MissingMeasurement
from pit_downstream.utils.errors import InputError
from tests.results.builders import get_rows, make_results, without

BENCHMARK = Occlusion(shares=('0.9', '0.25', '0.5'), cells=7)
CENTER = "occlusion(cells=7, shape='center', share=0.5)"
VALUES = dict(zip(map(str, BENCHMARK.conditions()), (.1, .9, .25, .5, .8, .2, .4), strict=True))


def test_conditions_are_strengths_of_the_corruption():
    for benchmark in (BENCHMARK, Occlusion()):
        for condition in benchmark.conditions():
            check_corruption(condition.corruption)
    assert len(Occlusion().conditions()) == 11 and CENTER in VALUES
    with pytest.raises(InputError, match='shape must be one of random, center'):
        check_corruption(Occlusion(shapes=('corner',)).conditions()[1].corruption)


def test_table_has_a_row_per_shape_and_a_column_per_share():
    sheet, = make_results(BENCHMARK, VALUES).sheets
    assert get_rows(sheet) == [
        ['top1_error', 'clean', '0.25', '0.5', '0.9'], ['clean', '0.1000', '', '', ''],
        ['random', '', '0.2500', '0.5000', '0.9000'], ['center', '', '0.2000', '0.4000', '0.8000']]


def test_summary_has_the_accuracies():
    argv = ['pit-downstream evaluate', '--benchmark', 'occlusion', '--model', 'm']
    results = make_results(BENCHMARK, VALUES, argv=argv)
    assert {name: estimate.value for name, estimate in results.summary.items()} == {
        f'accuracy({name})': pytest.approx(1 - error) for name, error in VALUES.items()}
    with pytest.raises(MissingMeasurement, match=r"shape='center'.*To measure it: pit-downstream evaluate --benchmark "
                       r'occlusion --model m$'):
        _ = without(results, CENTER).summary


def test_command_without_a_run_has_the_fields():
    assert without(make_results(BENCHMARK, VALUES), CENTER).gaps[0].command == (
        'pit-downstream evaluate --benchmark occlusion --model m --shares 0.9 0.25 0.5 --cells 7')
