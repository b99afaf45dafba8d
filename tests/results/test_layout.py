"""Tables in a layout, of values made by hand."""

from dataclasses import dataclass

import pytest

from pit_downstream.benchmarks.base import Benchmark
from pit_downstream.results.condition import Condition
from pit_downstream.results.layout import Layout, average, choose_metric, get_part, list_columns, make_grid, make_sheet
from pit_downstream.results.results import Results
from pit_downstream.utils.errors import InputError
from tests.results.builders import get_rows, make_results, make_table, without


@dataclass(frozen=True)
class Example(Benchmark):
    """Conditions of a test, given as text."""

    name = 'example'
    texts: tuple[str, ...] = ()

    def conditions(self):
        return tuple(map(Condition.parse, self.texts))


def make(values, **options):
    return make_results(Example(tuple(key if isinstance(key, str) else key[0] for key in values)), values, **options)


@pytest.mark.parametrize('condition, parts', [
    ('clean', {'corruption': 'clean', 'severity': '', 'attack': 'clean', 'epsilon': '', 'condition': 'clean'}),
    ("fog(severity=3, variant='x')", {'corruption': 'fog', 'severity': '3', 'variant': 'x', 'attack': "fog(severity=3,"
                                      " variant='x')"}),
    ("clean + pgd(epsilon=8/255, norm='Linf', steps=20)", {'attack': 'pgd(steps=20)', 'epsilon': '8/255',
                                                           'norm': 'Linf', 'steps': '20', 'corruption': 'clean'}),
    ("fog(severity=3) + pgd(epsilon=0.5, norm='L2')", {'attack': 'fog(severity=3) + pgd, L2', 'epsilon': '0.5'}),
    ("clean + patch(norm='patch', side=40)", {'attack': 'patch(side=40), patch', 'epsilon': '', 'side': '40'}),
])
def test_parts_of_a_condition(condition, parts):
    assert {part: get_part(Condition.parse(condition), part) for part in parts} == parts


def test_columns_sort_by_size_and_words_keep_their_order():
    columns = ['8/255', '1/255', '10', '0.02', 'block10', '', 'block2']
    assert list_columns(('row', column) for column in columns) == [
        '1/255', '0.02', '8/255', '10', 'block10', 'block2']


def test_mean_is_never_over_a_gap():
    results = without(make({'clean': .1, 'fog(severity=1)': .2, 'fog(severity=2)': .4, 'snow(severity=1)': .3,
                            'snow(severity=2)': .5}), 'snow(severity=1)')
    sheet = make_sheet('s', results, Layout('corruption', 'severity', mean_row=True), 'top1_error')
    assert get_rows(sheet) == [['top1_error', '1', '2', 'mean'], ['clean', '', '', '0.1000'],
                               ['fog', '0.2000', '0.4000', '0.3000'], ['snow', '-', '0.5000', '-'],
                               ['mean', '-', '0.4500', '-']]
    assert average([]) is None and average([.5, None]) is None and average([.5, 1.]) == .75


def test_mean_is_missing_where_no_row_has_a_column():
    """The column is not in the table, but the mean would be of easier conditions than that of another model."""
    benchmark = Example(('clean', 'fog(severity=1)', 'fog(severity=5)', 'snow(severity=1)', 'snow(severity=5)'))
    sheet = make_sheet('s', make_results(benchmark, {'snow(severity=1)': .5, 'fog(severity=1)': .2}), Layout(
        'corruption', 'severity', mean_row=True), 'top1_error')
    assert get_rows(sheet) == [['top1_error', '1', 'mean'], ['fog', '0.2000', '-'], ['snow', '0.5000', '-'],
                               ['mean', '0.3500', '-']]


def test_without_a_mean_the_clean_number_has_a_column():
    results = make({'clean': .1, 'fog(severity=1)': .2, 'fog(severity=2)': .4})
    sheet = make_sheet('s', results, Layout('corruption', 'severity', mean=False), 'top1_error')
    assert get_rows(sheet) == [
        ['top1_error', 'clean', '1', '2'], ['clean', '0.1000', '', ''], ['fog', '', '0.2000', '0.4000']]


def test_without_columns_a_rate_has_its_interval_and_count():
    sheet = make_sheet('s', make({'clean': .25, 'fog(severity=1)': .5}, count=20), Layout('condition'), 'top1_error')
    assert get_rows(sheet) == [['condition', 'top1_error', 'images'], ['clean', '0.2500', '20'],
                               ['fog(severity=1)', '0.5000', '20']]
    assert sheet.rows[1][1].fraction_interval == '0.2993 to 0.7007'  # Wilson, .5 of 20
    assert sheet.caption == 'top1_error of m on imagenet, in percent, by condition.'


def test_number_that_is_no_fraction_is_not_in_percent():
    sheet = make_sheet('s', make({'clean': 2.345}, metric='nll'), Layout('condition', value='nll'), 'nll')
    assert sheet.rows[0][1].text == '2.35' and 'percent' not in sheet.caption


def test_two_numbers_in_one_cell_are_refused():
    """Otherwise the table would show one of them."""
    results = make({"frost(severity=1)": .2, "frost(severity=1, variant='hendrycks')": .4})
    with pytest.raises(InputError, match="two numbers of top1_error in row 'frost' and column '1': "):
        make_grid(results, Layout('corruption', 'severity'), 'top1_error')


def test_only_conditions_of_the_benchmark_are_in_its_table():
    results = make_results(Example(('clean',)), {'clean': .1, 'fog(severity=1)': .2})
    assert list(make_grid(results, Layout('condition'), 'top1_error')) == [('clean', 'top1_error')]


def test_rows_can_be_datasets_and_columns_layers():
    benchmark = Example(('clean',))
    results = Results(benchmark, {name: make_table({'clean': value}, dataset=name) for name, value in (
        ('imagenet', .1), ('shift_fog', .4))})
    assert get_rows(make_sheet('s', results, Layout('dataset'), 'top1_error'))[1:] == [
        ['imagenet', '0.1000', '100'], ['shift_fog', '0.4000', '100']]
    values = {('clean', 'token_rank', f'block{number}'): number / 2 for number in (1, 2, 10)}
    layers = make_results(benchmark, {**values, ('clean', 'attention'): 1.})
    layout = Layout('condition', 'layer', value='token_rank', mean=False)
    assert choose_metric(layers, layout) == 'token_rank'
    assert get_rows(make_sheet('s', layers, layout, 'token_rank')) == [
        ['token_rank', 'block1', 'block2', 'block10'], ['clean', '0.5', '1', '5']]


def test_first_measured_metric_replaces_one_that_was_not_measured():
    results = make({('clean', 'AP50'): .5, ('clean', 'AP75'): .25})
    assert choose_metric(results, Layout('condition', value='AP')) == 'AP50'
    assert choose_metric(make({}), Layout('condition', value='AP')) == 'AP'
