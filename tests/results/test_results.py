"""The frame, exports and gaps of results, and differences of two models, with numbers worked by hand."""

import csv
import io
import json
from dataclasses import replace
from math import isnan

import pandas as pd
import pytest

from pit_downstream.benchmarks.imagenet_c import ImageNetC
from pit_downstream.benchmarks.occlusion import Occlusion
from pit_downstream.results.intervals import (
    compare_intervals,
    compute_mcnemar_p,
    compute_paired_interval,
    compute_wilson_interval,
)
from pit_downstream.results.records import MissingMeasurement, Record, Table
from pit_downstream.results.results import COLUMNS, Results, compare, get_image_key, make_row, parse_row
from pit_downstream.utils.errors import InputError
from tests.results.builders import make_results, without

MODEL = "pit_s(amp='bf16', mean=0.5, std=0.25, weights='a.pth@0123456789abcdef')"
DATA = "imagenet(files='0123456789abcdef', images=1000, resize=256, size=224)"
FOG = ImageNetC(corruptions=('fog',), severities=(3,))
FOG_3 = 'fog(severity=3)'


def record(condition='clean', metric='top1_error', value=.25, **others):
    return Record(**{'model': MODEL, 'dataset': DATA, 'condition': condition, 'metric': metric, 'value': value,
                     'count': 1000, 'seed': 0, **others})


RECORDS = [
    record(benchmark='imagenet_c', data_digest='d' * 16, unreadable=2),
    record("frost(severity=5, variant='hendrycks')", value=1 / 3),
    record("fog(severity=3) + pgd(epsilon=8/255, norm='L2', steps=20)", value=.75),
    record("clean + patch(norm='patch', side=40)"), record(metric='nll', value=1.5), record(
        metric='token_rank', value=12.5, layer='stage2.block4'), record(metric='AP', value=.5, class_name='dog')]


def test_frame_has_one_row_per_number_with_the_documented_columns():
    frame = Results(FOG, {'data': Table(MODEL, DATA, RECORDS)}).frame
    assert tuple(frame.columns) == COLUMNS and len(frame) == len(RECORDS)
    assert frame.value.tolist() == [one.value for one in RECORDS]
    shown = ['corruption', 'variant', 'severity', 'attack', 'norm', 'epsilon']
    assert frame[shown].values.tolist() == [
        ['', '', '', '', '', ''], ['frost', "variant='hendrycks'", 5, '', '', ''],
        ['fog', '', 3, 'pgd(steps=20)', 'L2', '8/255'], ['', '', '', 'patch(side=40)', 'patch', ''],
        *[['', '', '', '', '', '']] * 3]
    assert frame['layer'].tolist()[-2:] == ['stage2.block4', ''] and frame['class'].tolist()[-2:] == ['', 'dog']
    first = frame.iloc[0]
    assert (first.weights_digest, first.preprocessing, first.precision) == (
        '0123456789abcdef', 'size=224, resize=256, mean=0.5, std=0.25', 'bf16')
    assert (first.data_digest, first.benchmark, first.unreadable, first.schema) == ('d' * 16, 'imagenet_c', 2, 1)
    assert frame.data_digest[1] == '0123456789abcdef'  # that of the clean files
    assert (first.low, first.high) == compute_wilson_interval(.25, 1000) and frame.low[4] == ''


def test_csv_has_every_number_exactly(tmp_path):
    results = Results(FOG, {'data': Table(MODEL, DATA, RECORDS)})
    text = results.to_csv(tmp_path / 'x.csv')
    assert (tmp_path / 'x.csv').read_text() == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [float(row['value']) for row in rows] == [one.value for one in RECORDS]
    assert [int(row['count']) for row in rows] == [1000] * len(RECORDS)
    assert float(rows[1]['low']) == compute_wilson_interval(1 / 3, 1000)[0] and rows[4]['low'] == ''
    frame = pd.read_csv(io.StringIO(text), keep_default_na=False)
    assert frame.condition.tolist() == [one.condition for one in RECORDS]


def test_rows_are_the_records_again():
    """Apart from the digest, which is that of the dataset's files where a condition has none."""
    rows = [parse_row(json.loads(json.dumps(make_row(one)))) for one in RECORDS]
    assert rows == [replace(one, data_digest=one.data_digest or '0123456789abcdef') for one in RECORDS]


def test_json_has_summary_gaps_warnings_and_records(tmp_path):
    values = {'clean': .25, **{f'occlusion(cells=14, shape={shape!r}, share={share})': share
                               for shape in ('random', 'center') for share in (.1, .3, .5, .7, .9)}}
    whole = make_results(Occlusion(), values)
    content = json.loads(whole.to_json(tmp_path / 'x.json'))
    assert content == json.loads((tmp_path / 'x.json').read_text())
    assert (content['schema'], content['benchmark'], content['model'], content['gaps']) == (1, 'occlusion', 'm', [])
    assert content['summary']['accuracy(clean)'] == {
        'value': .75, 'count': 100, **dict(zip(('low', 'high'), compute_wilson_interval(.75, 100), strict=True))}
    assert [row['value'] for row in content['records']] == list(values.values())
    part = without(whole, 'clean')
    part.warnings = ('take care',)
    content = json.loads(part.to_json())
    assert content['summary'] is None and content['warnings'] == ['take care'] and len(content['records']) == 10
    assert content['gaps'] == [{'what': '1 condition (clean) not measured',
                                'command': 'pit-downstream evaluate --benchmark occlusion --model m'}]


def test_missing_number_of_a_summary_is_named_with_its_command():
    results = make_results(ImageNetC(), {'clean': .25}, model=MODEL, argv=['tools/eval_imagenet_c.py', '--model',
                                                                          'pit_s', '--limit', '9'])
    with pytest.raises(MissingMeasurement, match=r'top1_error of pit_s.* under gaussian_noise\(severity=1\).* and 69 '
                       r'more\. To measure it: pit-downstream eval-imagenet-c --model pit_s --limit 9 --corruptions '
                       r'gaussian_noise .* jpeg_compression --severities 1 2 3 4 5$') as caught:
        _ = results.summary
    assert len(caught.value.keys) == 75


def test_text_has_header_tables_gaps_and_warnings():
    results = make_results(FOG, {'clean': .25, FOG_3: .5}, argv=['eval-imagenet-c', '--model', 'm'])
    results.header, results.warnings = ('224 px',), ('take care',)
    first, table, _, gap, warning = str(results).split('\n\n')
    assert first == 'm on imagenet, 100 images\n224 px'
    assert [line.split() for line in table.splitlines()] == [
        ['top1_error', '3', 'mean'], ['clean', '0.2500'], ['fog', '0.5000', '0.5000']]
    assert gap.startswith('no mCE: 74 conditions (gaussian_noise, ')
    assert 'To measure it: pit-downstream eval-imagenet-c --model m --corruptions gaussian_noise ' in gap
    assert warning == 'warning: take care'


def test_counts_that_differ_are_shown():
    table = Table('m', 'd', [Record('m', 'd', 'clean', 'top1_error', .5, 10, 0),
                             Record('m', 'd', FOG_3, 'top1_error', .5, 8, 0)])
    assert str(Results(FOG, {'data': table})).startswith('m on d, 8 to 10 images\n')


def test_markdown_and_latex_are_written(tmp_path):
    results = make_results(FOG, {'clean': .25, FOG_3: .5})
    for write, name, mark in ((results.to_markdown, 'x.md', '| clean'), (results.to_latex, 'x.tex', r'\toprule')):
        text = write(tmp_path / name)
        assert (tmp_path / name).read_text() == text and mark in text
        assert text.count('top1\\_error' if name == 'x.tex' else 'top1_error') == 2  # column and caption


def test_latex_of_several_models_has_the_best_in_bold():
    first = make_results(FOG, {'clean': .25, FOG_3: .5})
    second = make_results(FOG, {'clean': .2, FOG_3: .75}, model='n')
    gap = make_results(FOG, {'clean': .3}, model='o')
    rows = {line.split('&')[0].strip(): [cell.strip() for cell in line.removesuffix(r'\\').split('&')[1:]]
            for line in first.to_latex(others=[second, gap]).splitlines() if '&' in line}
    assert rows == {'corruption': ['m', 'n', 'o'], 'clean': ['25.0', r'\textbf{20.0}', '30.0'],
                    'fog': [r'\textbf{50.0}', '75.0', '--']}


def test_mean_over_other_columns_is_not_compared():
    """The second model lacks severity 5, the hardest; its mean over the others would be too good."""
    benchmark = ImageNetC(corruptions=('fog',), severities=(1, 5))
    first = make_results(benchmark, {'fog(severity=1)': .2, 'fog(severity=5)': .8})
    second = make_results(benchmark, {'fog(severity=1)': .3}, model='n')
    row, = benchmark.compare_models([first, second]).rows
    assert [cell.value for cell in row] == [None, .5, None]


# compare(): the second model is right on images 5 and 6, the first on 4; ten images
BEFORE, AFTER = '0000011111', '0000100111'


def pair(first=BEFORE, second=AFTER, **options):
    return (make_results(FOG, {FOG_3: .5}, count=10, outcomes={FOG_3: first}),
            make_results(FOG, {FOG_3: .4}, count=10, outcomes={FOG_3: second}, model='n', **options))


def test_compare_pairs_errors_by_image():
    row = compare(*pair()).iloc[0]
    assert (row['first'], row['second']) == (.5, .4)
    assert row.difference == pytest.approx(.1) and bool(row.paired) and row['count'] == 10
    assert (row.low, row.high) == compute_paired_interval(2, 1, 10) and row.p == compute_mcnemar_p(2, 1)
    swapped = compare(*reversed(pair())).iloc[0]
    assert swapped.difference == pytest.approx(-.1)
    assert (swapped.low, swapped.high) == pytest.approx((-row.high, -row.low))


def test_compare_without_all_outcomes_adds_the_intervals():
    """An image without an outcome on one side, or no outcomes at all."""
    low, high = compute_wilson_interval(.5, 10), compute_wilson_interval(.6, 10)
    expected = compare_intervals(low, high, .1)
    for results in (pair(second='000010011?'), (pair()[0], make_results(FOG, {FOG_3: .4}, count=10, model='n'))):
        row = compare(*results).iloc[0]
        assert not row.paired and row.difference == pytest.approx(.1) and isnan(row.p or float('nan'))
        assert (row.low, row.high) == pytest.approx((expected.low, expected.high))


def test_compare_skips_an_image_that_neither_could_read():
    first = make_results(FOG, {FOG_3: 5 / 9}, count=9, outcomes={FOG_3: '0000?11111'})
    second = make_results(FOG, {FOG_3: 3 / 9}, count=9, outcomes={FOG_3: '0000?00111'}, model='n')
    row = compare(first, second).iloc[0]
    assert row.difference == pytest.approx(2 / 9) and row['count'] == 9
    assert (row.low, row.high) == compute_paired_interval(2, 0, 9)


def test_compare_ignores_the_preprocessing_and_refuses_other_images():
    first, _ = pair()
    view = make_results(FOG, {FOG_3: .4}, count=10, model='n', dataset='imagenet(size=288)', outcomes={FOG_3: AFTER})
    assert len(compare(first, view)) == 1
    with pytest.raises(InputError, match='no condition on the same images .*same --limit'):
        compare(first, make_results(FOG, {FOG_3: .4}, count=10, model='n', dataset='imagenet(limit=5)'))
    with pytest.raises(InputError, match='no condition'):
        compare(first, make_results(FOG, {'clean': .4}, count=10, model='n'))


def test_number_without_outcomes_has_a_difference_alone():
    first, second = (make_results(FOG, {('clean', 'AP'): value}, model=model)
                     for model, value in (('m', .25), ('n', .5)))
    row = compare(first, second).iloc[0]
    assert row.difference == .25 and isnan(row.low) and not row.paired


def test_views_of_clean_images_do_not_make_other_images():
    keys = {get_image_key(f"imagenet_c(images=10, pictures='ab', clean_resize={side}, resize={side})")
            for side in (35, 36)}
    assert len(keys) == 1


@pytest.mark.parametrize(('change', 'message'), [({'data_digest': 'b' * 16}, 'on different images under clean'),
                                                 ({'seed': 3}, 'with the seed 0 and m with 3')])
def test_results_of_other_images_or_seeds_are_not_compared(change, message):
    first, second = (Results(ImageNetC(), {'data': Table('m', 'd', [Record(
        'm', 'd', 'clean', 'top1_error', .5, 20, **{'seed': 0, 'data_digest': 'a' * 16, **values})])})
        for values in ({}, change))
    with pytest.raises(InputError, match=message):
        compare(first, second)
