"""Similar blocks per kind of maps and stage, of values made by hand."""

from pit_downstream.benchmarks.attention import Attention
from pit_downstream.metrics import attention  # noqa: F401  registers the metric
from pit_downstream.utils.registry import METRICS
from pit_downstream.utils.spec import Spec
from tests.results.builders import get_rows, make_results

FOG = 'fog(severity=3)'
BENCHMARK = Attention(corruptions=(FOG,))
VALUES = {('clean', 'softmax_similar_blocks(threshold=0.9)', 'stage1'): 2., (
    'clean', 'softmax_similar_ratio(threshold=0.9)', 'stage1'): .5, (
    'clean', 'reattention_similar_blocks(threshold=0.9)'): 1., (
    'clean', 'reattention_similar_ratio(threshold=0.9)'): .25, (
    FOG, 'softmax_similar_blocks(threshold=0.9)', 'stage1'): 3., (
    FOG, 'softmax_similar_ratio(threshold=0.9)', 'stage1'): .75, (
    'clean', 'softmax_similar_blocks(threshold=0.5)', 'stage1'): 4., (
    'clean', 'softmax_similarity', 'stage1.block1:stage1.block2'): .8, ('clean', 'token_rank', 'stage1.block1'): 8., (
    'clean', 'token_rank', 'stage1.block2'): 6.}


def test_table_has_the_similar_blocks_of_the_threshold():
    sheet, = make_results(BENCHMARK, VALUES).sheets
    assert get_rows(sheet) == [['condition', 'maps', 'stage', 'similar blocks', 'of all'],
                               ['clean', 'softmax', 'stage1', '2', '0.5000'],
                               ['clean', 'Re-attention', 'all', '1', '0.2500'],
                               [FOG, 'softmax', 'stage1', '3', '0.7500']]


def test_summary_is_that_of_clean_images():
    summary = {name: estimate.value for name, estimate in make_results(BENCHMARK, VALUES).summary.items()}
    assert summary['softmax_similar_blocks(threshold=0.9)@stage1'] == 2
    assert summary['reattention_similar_ratio(threshold=0.9)'] == .25
    assert len(summary) == 5 and 3. not in summary.values()


def test_condition_without_token_ranks_is_a_gap():
    gap, = make_results(BENCHMARK, VALUES, argv=['analyze-attention', '--model', 'm', '--limit', '4']).gaps
    assert (gap.what, gap.command) == ('1 condition (fog) not measured',
                                       'pit-downstream analyze-attention --model m --limit 4')
    complete = VALUES | {(FOG, 'token_rank', 'stage1.block1'): 5.}
    assert make_results(BENCHMARK, complete).gaps == []


def test_models_of_other_depth_are_compared_by_similar_blocks():
    deep = {('clean', 'softmax_similar_blocks(threshold=0.9)', 'stage1'): 1.,
            ('clean', 'token_rank', 'stage9.block1'): 5.}
    sheet = BENCHMARK.compare_models([make_results(BENCHMARK, VALUES), make_results(BENCHMARK, deep, model='deep')])
    rows = {row[0].text: [f'**{cell.text}**' if cell.is_best else cell.text for cell in row[1:]] for row in sheet.rows}
    assert rows['softmax similar blocks(threshold=0.9)@stage1'] == ['2', '**1**']
    assert rows['softmax similar ratio(threshold=0.9)@stage1'] == ['50.0', '–']
    assert not any('token' in name for name in rows)


def test_figure_has_the_token_rank_of_every_layer():
    axes, = make_results(BENCHMARK, VALUES).plot().axes
    line, = axes.containers
    assert line.lines[0].get_ydata().tolist() == [8, 6]
    assert [text.get_text() for text in axes.get_xticklabels()] == ['stage1.block1', 'stage1.block2']
    assert axes.get_ylabel() == 'token_rank'


def test_threshold_is_an_argument_of_the_metric():
    name, = Attention(threshold=.5).metric_names('classifier')
    spec = Spec.parse(name)
    assert METRICS[spec.name](**dict(spec.kwargs)).threshold == .5
    assert list(map(str, BENCHMARK.conditions())) == ['clean', FOG]
