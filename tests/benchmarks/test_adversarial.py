"""Accuracies, worst cases and curves of a table that was made by hand; intervals against the formula."""

import csv
import io
import json
from fractions import Fraction
from math import sqrt

import pytest

from pit_downstream.benchmarks import adversarial
from pit_downstream.benchmarks.adversarial import (
    Rate,
    compute_worst_cases,
    group_curves,
    list_conditions,
    set_norm_and_epsilon,
)
from pit_downstream.benchmarks.base import Z
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.records import MissingMeasurement, Record, Table
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Spec

PGD, FGSM = Spec.of('pgd', steps=20), Spec.of('fgsm')
ERRORS = {'clean': .2, "clean + fgsm(epsilon=4/255, norm='Linf')": .5, "clean + fgsm(epsilon=8/255, norm='Linf')": .6,
          "clean + pgd(epsilon=4/255, norm='Linf', steps=20)": .55,
          "clean + pgd(epsilon=8/255, norm='Linf', steps=20)": .75,
          "clean + pgd(epsilon=8/255, norm='Linf', steps=5)": .7}
FIVE = Condition(None, Spec.parse("pgd(epsilon=8/255, norm='Linf', steps=5)"))
EVERY = (*list_conditions([FGSM, PGD], [Fraction(4, 255), Fraction(8, 255)]), FIVE)


@pytest.fixture
def table():
    records = [Record('m', 'd', condition, 'top1_error', error, 20, 0) for condition, error in ERRORS.items()]
    cost = Record('m', 'd', "clean + pgd(epsilon=4/255, norm='Linf', steps=20)", 'forwards', 12.25, 20, 0)
    return Table('m', 'd', [*records, cost])


def interval(rate, count):
    """Wilson 1927, written out."""
    middle = rate + Z ** 2 / (2 * count)
    spread = Z * sqrt(rate * (1 - rate) / count + Z ** 2 / (4 * count ** 2))
    return tuple(pytest.approx((middle + sign * spread) / (1 + Z ** 2 / count)) for sign in (-1, 1))


def test_conditions_are_attacks_by_epsilons():
    assert list(map(str, EVERY)) == list(ERRORS)


def test_an_attack_keeps_its_own_norm_and_epsilon():
    assert str(set_norm_and_epsilon(Spec.parse('pgd(epsilon=1/2)'), 'L2',
                                    Fraction(8, 255))) == "pgd(epsilon=1/2, norm='L2')"
    once = list_conditions([Spec.parse("patch(epsilon=1, norm='Linf')")], [.1, .2], norms=['L2', 'L1'])
    assert list(map(str, once)) == ['clean', "clean + patch(epsilon=1, norm='Linf')"]
    fog = Spec.of('fog', severity=3)
    assert list(map(str, list_conditions([FGSM], [.5], norms=['L2'], corruptions=[None, fog]))) == [
        'clean', 'fog(severity=3)', "clean + fgsm(epsilon=0.5, norm='L2')",
        "fog(severity=3) + fgsm(epsilon=0.5, norm='L2')"]


def test_accuracies_with_their_intervals(table):
    rate = adversarial.get_accuracy(table, EVERY[3])
    assert (rate.value, (rate.low, rate.high), rate.count) == (pytest.approx(.45), interval(.45, 20), 20)
    assert adversarial.summarize(table) == {f'accuracy({name})': pytest.approx(1 - error)
                                            for name, error in ERRORS.items()}
    with pytest.raises(MissingMeasurement, match='no top1_error of m on d under clean; to fill the gap: pit-'):
        adversarial.summarize(Table('m', 'd', table.records[1:]))


def test_curves_over_epsilon_and_over_steps(table):
    def values(argument):
        return {name: [(value, rate.value) for value, rate in points]
                for name, points in group_curves(table, argument).items()}
    assert values('epsilon') == {"clean + fgsm(norm='Linf')": [(4 / 255, .5), (8 / 255, pytest.approx(.4))],
                                 "clean + pgd(norm='Linf', steps=20)": [(4 / 255, pytest.approx(.45)), (8 / 255, .25)]}
    assert values('steps') == {"clean + pgd(epsilon=8/255, norm='Linf')": [(5, pytest.approx(.3)), (20, .25)]}


def test_the_worst_case_is_taken_image_by_image():
    verdicts = {EVERY[1]: {'a': True, 'b': False, 'c': True, 'd': True}, EVERY[2]: {'a': True},
                EVERY[3]: {'a': False, 'b': False, 'c': True, 'd': True}, CLEAN: {'a': True}}
    (condition, rate), = compute_worst_cases(verdicts).items()
    assert str(condition) == "clean + worst_case(epsilon=4/255, norm='Linf')"
    assert (rate.value, rate.count, (rate.low, rate.high)) == (.5, 4, interval(.5, 4))
    with pytest.raises(ValueError, match='expected verdicts on the same images for clean . worst_case'):
        compute_worst_cases({**verdicts, EVERY[3]: {'a': False}})


def test_text(table):
    worst = {Condition(None, Spec.of('worst_case', epsilon=Fraction(4, 255), norm='Linf')): Rate.of(.4, 20)}
    lines = adversarial.format_table(table, EVERY, worst).splitlines()
    assert lines[0].split() == ['attack', 'norm', 'epsilon', 'accuracy', '95', '%', 'forwards', 'backwards']
    assert lines[1].split()[:2] == ['clean', '0.8000']
    assert lines[4].split() == ['pgd(steps=20)', 'Linf', '4/255', '0.4500', '0.2582', 'to', '0.6579', '12.2']
    assert lines[7].split()[:5] == ['worst', 'case', 'Linf', '4/255', '0.4000']
    with pytest.raises(MissingMeasurement, match='under clean . fgsm'):
        adversarial.format_table(Table('m', 'd', table.records[:1]), EVERY, {})


def test_csv_and_json(table):
    rows = list(csv.DictReader(io.StringIO(adversarial.format_csv(table))))
    assert len(rows) == 7 and rows[3]['attack'] == 'pgd(steps=20)' and rows[3]['epsilon'] == '4/255'
    assert (float(rows[3]['low']), float(rows[3]['high'])) == interval(.55, 20) and rows[6]['low'] == ''
    read = json.loads(adversarial.format_json(table, {}, ['take care']))
    assert read['warnings'] == ['take care'] and len(read['records']) == 7
    assert read['curves']['steps']["clean + pgd(epsilon=8/255, norm='Linf')"][1][1]['value'] == .25


def test_the_registered_one_has_autoattack_at_what_leaderboards_use():
    """RobustBench, ImageNet: Linf 4/255, AutoAttack standard."""
    names = list(map(str, BENCHMARKS['adversarial'].conditions))
    assert names[0] == 'clean' and "clean + autoattack(epsilon=4/255, norm='Linf')" in names
