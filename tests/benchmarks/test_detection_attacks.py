"""AP under attacks, of values made by hand."""

import pytest

from pit_downstream.benchmarks.adversarial import group_curves
from pit_downstream.benchmarks.detection_attacks import DetectionAttacks
from pit_downstream.results.records import MissingMeasurement
from tests.results.builders import get_rows, make_results, without

BENCHMARK = DetectionAttacks(('pgd(steps=10)', "patch(norm='patch', side=40)"), epsilons=('8/255', '2/255'),
                             corruptions=('fog(severity=3)',))
VALUES = dict(zip(map(str, BENCHMARK.conditions()), (.5, .4, .1, .3, .2, .05, .15, .12), strict=True))


def results_of(metrics=('AP',), **options):
    return make_results(BENCHMARK, {(name, metric): value for metric in metrics for name, value in VALUES.items()},
                        **{'dataset': 'coco', 'count': 8} | options)


def test_table_has_a_row_per_attack_and_a_column_per_epsilon():
    sheet, = results_of(['AP', 'AP50']).sheets
    assert get_rows(sheet) == [
        ['AP', 'no attack', '', '2/255', '8/255'], ['clean', '0.5000', '', '', ''],
        ['fog(severity=3)', '0.4000', '', '', ''],
        ["clean + pgd(norm='Linf', steps=10)", '', '', '0.3000', '0.1000'],
        ["clean + patch(norm='patch', side=40)", '', '0.2000', '', ''],
        ["fog(severity=3) + pgd(norm='Linf', steps=10)", '', '', '0.1500', '0.0500'],
        ["fog(severity=3) + patch(norm='patch', side=40)", '', '0.1200', '', '']]
    assert [sheet.columns[0] for sheet in results_of(['AP', 'mask_AP']).sheets] == ['AP', 'mask_AP']
    assert [sheet.columns[0] for sheet in results_of(['AP75']).sheets] == ['AP75']


def test_missing_attack_is_a_dash_and_a_gap():
    name = "clean + pgd(epsilon=2/255, norm='Linf', steps=10)"
    results = without(results_of(argv=['tools/eval_adversarial.py', '--model', 'c.py', '--weights', 'w.pth']), name)
    assert get_rows(results.sheets[0])[3][3:] == ['-', '0.1000']
    assert [str(gap) for gap in results.gaps] == [
        '1 condition (pgd(steps=10)) not measured. To measure it: pit-downstream eval-adversarial --model c.py '
        '--weights w.pth']
    assert f'AP({name})' not in results.summary
    with pytest.raises(MissingMeasurement, match='no AP of m on coco under clean'):
        _ = without(results, 'clean').summary


def test_summary_has_ap_without_interval():
    summary = results_of().summary
    assert {name: estimate.value for name, estimate in summary.items()} == {
        f'AP({name})': value for name, value in VALUES.items()}
    assert all(estimate.low is None for estimate in summary.values())


def test_curves_are_over_epsilon():
    values = {condition: results_of().table[condition, 'AP'] for condition in BENCHMARK.conditions()}
    curves = {str(name): points for name, points in group_curves(values).items()}
    assert curves == {"clean + pgd(norm='Linf', steps=10)": [(2 / 255, .3), (8 / 255, .1)],
                      "fog(severity=3) + pgd(norm='Linf', steps=10)": [(2 / 255, .15), (8 / 255, .05)]}


def test_defaults():
    names = list(map(str, DetectionAttacks().conditions()))
    assert len(names) == 9 and DetectionAttacks.tasks == ('detector',)
    assert names[1] == "clean + noise(epsilon=1/255, norm='Linf')"
    assert DetectionAttacks().required()[0][1] == 'AP'
