"""Accuracies, worst cases and curves of a table that was made by hand; intervals against the formula."""

from fractions import Fraction
from math import sqrt

import pytest

from pit_downstream.benchmarks.adversarial import (
    Adversarial,
    compute_worst_cases,
    describe_threat,
    find_strongest,
    get_accuracy,
    group_curves,
    list_conditions,
    parse_epsilon,
    set_norm_and_epsilon,
)
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.intervals import Z
from pit_downstream.results.records import MissingMeasurement
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import Spec
from tests.results.builders import get_rows, make_results, without

PGD, FGSM = 'pgd(steps=20)', 'fgsm'
FIVE_STEPS = "clean + pgd(epsilon=8/255, norm='Linf', steps=5)"
ERRORS = {'clean': .2, "clean + fgsm(epsilon=4/255, norm='Linf')": .5, "clean + fgsm(epsilon=8/255, norm='Linf')": .6,
          "clean + pgd(epsilon=4/255, norm='Linf', steps=20)": .55,
          "clean + pgd(epsilon=8/255, norm='Linf', steps=20)": .75, FIVE_STEPS: .7}
BENCHMARK = Adversarial((FGSM, PGD, "pgd(epsilon=8/255, norm='Linf', steps=5)"), epsilons=('4/255', '8/255'))
CONDITIONS = tuple(ERRORS)
COSTS = {(CONDITIONS[3], 'forwards'): 12.25, (CONDITIONS[3], 'backwards'): 10.}
WORST_4 = "clean + worst_case(epsilon=4/255, norm='Linf')"
WORST_8 = "clean + worst_case(epsilon=8/255, norm='Linf')"


def attacked(benchmark=BENCHMARK, **options):
    return make_results(benchmark, {(key, 'top1_error'): value for key, value in ERRORS.items()} | COSTS,
                        **{'count': 20} | options)


def interval(rate, count):
    """Wilson 1927, written out."""
    middle = rate + Z ** 2 / (2 * count)
    spread = Z * sqrt(rate * (1 - rate) / count + Z ** 2 / (4 * count ** 2))
    return tuple(pytest.approx((middle + sign * spread) / (1 + Z ** 2 / count)) for sign in (-1, 1))


def test_conditions_are_attacks_by_epsilons():
    assert list(map(str, BENCHMARK.conditions())) == list(ERRORS)


def test_attack_keeps_its_own_norm_and_epsilon():
    assert str(set_norm_and_epsilon(Spec.parse('pgd(epsilon=1/2)'), 'L2',
                                    Fraction(8, 255))) == "pgd(epsilon=1/2, norm='L2')"
    once = list_conditions([Spec.parse("patch(epsilon=1, norm='Linf')")], [.1, .2], norms=['L2', 'L1'])
    assert list(map(str, once)) == ['clean', "clean + patch(epsilon=1, norm='Linf')"]
    patch = Adversarial(("patch(norm='patch', side=40)",)).conditions()
    assert list(map(str, patch)) == ['clean', "clean + patch(norm='patch', side=40)"]


def test_attacks_on_corrupted_images():
    benchmark = Adversarial((FGSM,), 'L2', ('0.5',), ('fog(severity=3)',))
    assert list(map(str, benchmark.conditions())) == [
        'clean', 'fog(severity=3)', "clean + fgsm(epsilon=0.5, norm='L2')",
        "fog(severity=3) + fgsm(epsilon=0.5, norm='L2')"]
    only = Adversarial((), corruptions=('fog(severity=3)',))
    assert list(map(str, only.conditions())) == ['clean', 'fog(severity=3)']


@pytest.mark.parametrize('text', ['x', "'4'", 'True', '1/0', ''])
def test_epsilon_that_is_no_number_is_refused(text):
    with pytest.raises(InputError, match='epsilon must be a number'):
        parse_epsilon(text)
    assert (parse_epsilon('8/255'), parse_epsilon('0.5'), parse_epsilon('2')) == (Fraction(8, 255), .5, 2)


def test_summary_has_accuracies_with_their_intervals():
    rate = get_accuracy(attacked().table, Condition.parse(CONDITIONS[3]))
    assert (rate.value, (rate.low, rate.high), rate.count) == (pytest.approx(.45), interval(.45, 20), 20)
    summary = attacked().summary
    assert {name: estimate.value for name, estimate in summary.items()} == {
        f'accuracy({name})': pytest.approx(1 - error) for name, error in ERRORS.items()}
    assert next(iter(summary)) == 'accuracy(clean)' and summary[f'accuracy({CONDITIONS[3]})'] == rate
    with pytest.raises(MissingMeasurement, match='no top1_error of m on imagenet under clean. To measure it: pit-'):
        _ = without(attacked(), 'clean').summary


def test_curves_over_epsilon_and_over_steps():
    def values(argument):
        accuracies = {Condition.parse(name): 1 - error for name, error in ERRORS.items()}
        return {str(name): points for name, points in group_curves(accuracies, argument).items() if len(points) > 1}
    assert values('epsilon') == {"clean + fgsm(norm='Linf')": [(4 / 255, .5), (8 / 255, pytest.approx(.4))],
                                 "clean + pgd(norm='Linf', steps=20)": [(4 / 255, pytest.approx(.45)), (8 / 255, .25)]}
    assert values('steps') == {"clean + pgd(epsilon=8/255, norm='Linf')": [(5, pytest.approx(.3)), (20, .25)]}


# FGSM and PGD at 4/255, on four images: three and two are correct, two under both
OUTCOMES = {CONDITIONS[1]: '0100', CONDITIONS[3]: '1100', CLEAN: '0000'}


def test_worst_case_is_taken_image_by_image():
    results = attacked(outcomes={**OUTCOMES, 'clean': '0000'}, count=4)
    (condition, rate), = compute_worst_cases(results).items()  # outcomes at 8/255 are not stored
    assert str(condition) == WORST_4
    assert (rate.value, rate.count, (rate.low, rate.high)) == (.5, 4, interval(.5, 4))
    assert results.summary[f'accuracy({WORST_4})'] == rate


def test_worst_case_can_be_below_every_attack():
    worst = compute_worst_cases(attacked(outcomes={CONDITIONS[1]: '0011', CONDITIONS[3]: '1100'}))
    assert [rate.value for rate in worst.values()] == [0.]


def test_worst_case_counts_only_readable_images():
    worst, = compute_worst_cases(attacked(outcomes={CONDITIONS[1]: '01?0', CONDITIONS[3]: '11?0'})).values()
    assert (worst.value, worst.count) == (pytest.approx(1 / 3), 3)


def test_no_worst_case_of_other_images_or_of_one_attack():
    assert not compute_worst_cases(attacked(outcomes={CONDITIONS[1]: '01?0', CONDITIONS[3]: '1100'}))
    assert not compute_worst_cases(attacked(outcomes={CONDITIONS[1]: '0100'}))
    single = without(attacked(), CONDITIONS[1], CONDITIONS[2], FIVE_STEPS)
    assert not compute_worst_cases(single)
    assert {str(case): rate.value for case, rate in compute_worst_cases(single, at_least=1).items()} == {
        WORST_4: pytest.approx(.45), WORST_8: .25}
    named = {str(case): rate.value for case, rate in compute_worst_cases(
        attacked(), at_least=1, is_included=lambda condition: condition.attack.name == 'fgsm').items()}
    assert named == {WORST_4: .5, WORST_8: pytest.approx(.4)}


def test_worst_cases_of_norms_patches_and_corruptions_are_separate():
    keys = ["clean + fgsm(epsilon=1, norm='L2')", "clean + pgd(epsilon=1, norm='L2')",
            "clean + pgd(epsilon=1, norm='L1')",
            "fog(severity=3) + fgsm(epsilon=1, norm='L2')", "fog(severity=3) + pgd(epsilon=1, norm='L2')",
            "clean + patch(norm='patch', side=40)", "clean + patch(norm='patch', side=40, steps=9)",
            "clean + patch(norm='patch', side=50)"]
    results = make_results(Adversarial(), dict.fromkeys(keys, .5), outcomes=dict.fromkeys(keys, '01'))
    assert list(map(str, compute_worst_cases(results))) == [
        "clean + worst_case(epsilon=1, norm='L2')", "fog(severity=3) + worst_case(epsilon=1, norm='L2')",
        "clean + worst_case(norm='patch', side=40)"]


def test_strongest_attack_of_every_epsilon():
    strongest = {str(case): rate.value for case, rate in find_strongest(attacked()).items()}
    assert strongest == {WORST_4: pytest.approx(.45), WORST_8: .25}
    assert describe_threat(Condition.parse(WORST_8)) == 'Linf 8/255'
    assert describe_threat(Condition.parse("clean + patch(norm='patch')")) == 'patch'


def test_table_has_costs_and_worst_cases():
    sheet, = attacked(outcomes=OUTCOMES, count=4).sheets
    rows = get_rows(sheet)
    assert rows[0] == ['attack', 'norm', 'epsilon', 'accuracy', 'forwards', 'backwards']
    assert rows[1] == ['clean', '', ' ', '0.8000', '', '']
    assert rows[4] == ['pgd(steps=20)', 'Linf', '4/255', '0.4500', '12.2', '10.0']
    assert rows[7] == ['worst case', 'Linf', '4/255', '0.5000', '', ''] and len(rows) == 8
    line = str(attacked()).splitlines()[6].split()
    assert line == ['pgd(steps=20)', 'Linf', '4/255', '0.4500', '0.2582', 'to', '0.6579', '12.2', '10.0']


def test_missing_attack_is_a_dash_and_a_gap():
    results = without(attacked(argv=['tools/eval_adversarial.py', '--model', 'm', '--attacks', FGSM, PGD]), FIVE_STEPS)
    assert get_rows(results.sheets[0])[6] == ['pgd(steps=5)', 'Linf', '8/255', '-', '', '']
    assert [(gap.what, gap.command) for gap in results.gaps] == [
        ('1 condition (pgd(steps=5)) not measured',
         "pit-downstream eval-adversarial --model m --attacks fgsm 'pgd(steps=20)'")]


def test_command_without_a_run_has_the_attacks():
    command = without(attacked(), FIVE_STEPS).gaps[0].command
    assert command == ("pit-downstream eval-adversarial --model m --attacks fgsm 'pgd(steps=20)' "
                       "'pgd(epsilon=8/255, norm='\"'\"'Linf'\"'\"', steps=5)' --epsilons 4/255 8/255")


def test_attacks_of_models_are_compared():
    rows = {row[0].text: [cell.value for cell in row[1:]]
            for row in BENCHMARK.compare_models([attacked(), attacked(model='n')]).rows}
    assert rows == {'clean': [.2, .2], 'fgsm, 4/255': [.5, .5], 'fgsm, 8/255': [.6, .6],
                    'pgd(steps=20), 4/255': [.55, .55], 'pgd(steps=20), 8/255': [.75, .75],
                    'pgd(steps=5), 8/255': [.7, .7]}


def test_default_has_autoattack_at_the_epsilon_of_leaderboards():
    """RobustBench, ImageNet: Linf 4/255, AutoAttack standard."""
    names = list(map(str, Adversarial().conditions()))
    assert names[0] == 'clean' and "clean + autoattack(epsilon=4/255, norm='Linf')" in names
    assert Adversarial().metric_names('classifier') == ('top1_error',) and CLEAN in Adversarial().conditions()


def test_gray_levels_as_decimals_are_fractions():
    conditions = [list(map(str, Adversarial(attacks=('fgsm',), epsilons=epsilons).conditions()))
                  for epsilons in (('8/255',), (8 / 255,), ('0.5',))]
    assert conditions[0] == conditions[1] and 'epsilon=8/255' in conditions[1][-1] and '=0.5' in conditions[2][-1]
