"""Published accuracies in, the published gaps out."""

import csv
import io
import json
from pathlib import Path

import pytest

from pit_downstream.benchmarks import shifts
from pit_downstream.benchmarks.shifts import Shifts
from pit_downstream.results.condition import CLEAN
from pit_downstream.results.intervals import compute_wilson_interval
from pit_downstream.results.records import MissingMeasurement, Record, Table
from pit_downstream.results.results import Results
from pit_downstream.results.tables import render_text
from tests.results.builders import get_rows

PIT_S = "pit_s(weights='timm/pit_s_224.in1k')"


def results_of(values, model='m', count=1000, names=(), argv=()):
    """Results from errors by (dataset, metric). count: of all datasets, or by dataset. names: selected shifts."""
    counts = count if isinstance(count, dict) else {}
    records = {}
    for (dataset, metric), value in values.items():
        size = counts.get(dataset, 1000 if counts else count)
        records.setdefault(dataset, []).append(
            Record(model, f'{dataset}(images={size})', 'clean', metric, value, size, 0))
    return Results(Shifts(tuple(names)), {name: Table(model, several[0].dataset, several)
                                          for name, several in records.items()}, argv=argv)


def pit_s(**options):
    """timm's published errors of PiT-S, also on the clean images of the classes of ImageNet-A and -R."""
    errors = {shifts.get_error_key(name): error for name, error in shifts.get_timm_errors(PIT_S).items()}
    errors |= {shifts.get_clean_key(name): 1 - accuracy / 100
               for name, accuracy in (('imagenet_a', 94.660), ('imagenet_r', 94.600))}
    errors[shifts.get_clean_key('imagenet_real')] = .18
    return results_of({(key.dataset, key.metric): error for key, error in errors.items()}, PIT_S, **options)


def values_of(results):
    return {name: estimate.value for name, estimate in results.summary.items()}


@pytest.mark.parametrize('original, same, random, expected', [
    (.943, .836, .734, .102), (.956, .862, .789, .073), (.967, .893, .835, .058)])
def test_bg_gap_is_the_published_one(original, same, random, expected):
    """VGG16-BN, ResNet-50 and ResNet-152 in the README of MadryLab/backgrounds_challenge."""
    results = results_of({('in9_original', 'top1_error'): 1 - original, ('in9_mixed_same', 'top1_error'): 1 - same,
                          ('in9_mixed_rand', 'top1_error'): 1 - random})
    gap = results.summary['bg_gap']
    assert gap.value == pytest.approx(expected)
    assert results.summary['in9_mixed_rand_gap'].value == pytest.approx(original - random)
    ends = compute_wilson_interval(1 - random, 1000), compute_wilson_interval(1 - same, 1000)
    assert (gap.low, gap.high) == (pytest.approx(ends[0][0] - ends[1][1]), pytest.approx(ends[0][1] - ends[1][0]))
    assert get_rows(results.sheets[1])[1] == ['BG-gap', f'{expected:+.4f}'] and results.gaps == []


def test_gap_of_a_custom_shift_is_to_its_clean_images():
    """Not to ImageNet's; timm has no numbers of it."""
    results = results_of({('imagenet', 'top1_error'): .2, ('imagenet_sketch', 'top1_error'): .7,
                          ('clean', 'top1_error'): .25, ('shift_fog', 'top1_error'): .75}, PIT_S)
    assert values_of(results) == {'imagenet_sketch_error': .7, 'imagenet_sketch_gap': pytest.approx(.5),
                                  'shift_fog_error': .75, 'shift_fog_gap': .5}
    rows = {row[0]: row for row in get_rows(results.sheets[0])[1:]}
    assert list(rows) == ['imagenet', 'clean', 'imagenet_sketch', 'shift_fog']
    assert (rows['imagenet'][-1], rows['clean'][-1]) == ('0.1889', '-')


def test_gap_of_a_custom_shift_with_some_classes_is_to_these():
    name = "shift_x(classes='cat_dog')"
    clean = [Record('m', 'clean', 'clean', 'top1_error', .5, 20, 0),
             Record('m', 'clean', 'clean', 'classes_cat_dog_top1_error', .25, 8, 0)]
    tables = {'clean': Table('m', 'clean', clean),
              'shift_x': Table('m', name, [Record('m', name, 'clean', 'top1_error', .75, 8, 0)])}
    assert values_of(Results(Shifts(('shift_x=DIR',)), tables)) == {'shift_x_error': .75, 'shift_x_gap': .5}


def test_gaps_are_to_the_clean_images_of_the_same_classes():
    """PiT-S: 21.080 % on ImageNet-A, 94.660 % on the clean images of its classes; 43.893 and 94.600 % for -R."""
    summary = values_of(pit_s())
    assert summary['imagenet_a_error'] == pytest.approx(1 - .21080)
    assert summary['imagenet_a_gap'] == pytest.approx(.94660 - .21080)
    assert summary['imagenet_r_gap'] == pytest.approx(.94600 - .43893)
    assert summary['imagenet_sketch_gap'] == pytest.approx(.81114 - .31325)
    assert summary['imagenet_v2_matched_frequency_gap'] == pytest.approx(.81114 - .69800)
    assert summary['imagenet_real_gap'] == pytest.approx(1 - .86319 - .18)
    assert 'bg_gap' not in summary and 'imagenet_gap' not in summary
    assert Shifts().conditions() == (CLEAN,)


def test_gap_without_its_clean_error_is_refused():
    results = pit_s(names=['imagenet_a=DIR'], argv=['tools/eval_shifts.py', '--model', 'pit_s', '--shifts',
                                                    'imagenet_a=DIR'])
    results.tables['imagenet'] = Table(PIT_S, 'imagenet', [results.tables['imagenet'].record((CLEAN, 'top1_error'))])
    with pytest.raises(MissingMeasurement, match='no imagenet_a_clean_error of .* on imagenet under clean. To measure '
                       'it: pit-downstream eval-shifts --model pit_s --shifts imagenet_a=DIR --data DIR$'):
        _ = results.summary
    assert json.loads(results.to_json())['summary'] is None
    del results.tables['imagenet']
    with pytest.raises(MissingMeasurement, match='no top1_error of .* on imagenet under clean'):
        shifts.compute_gap(results.tables, 'imagenet_sketch')
    with pytest.raises(MissingMeasurement, match='no top1_error of .* on in9_mixed_same'):
        shifts.compute_bg_gap(results.tables)


def test_published_errors_are_identified_by_the_weights():
    assert shifts.get_timm_errors(PIT_S)['imagenet_a'] == pytest.approx(1 - .2108)
    assert 'imagenet_a' not in shifts.get_timm_errors("resnet50(weights='timm/resnet50.tv_in1k')")
    assert not shifts.get_timm_errors("pit_s(weights='mine.pth@01234567')") and not shifts.get_timm_errors('pit_s')
    import timm
    known = timm.list_pretrained()
    assert all(name in known for name in shifts._TIMM)


def test_table_has_a_row_per_dataset():
    sheet, = pit_s(names=['imagenet_a=DIR', 'imagenet_real']).sheets
    assert get_rows(sheet) == [
        ['dataset', 'images', 'error', 'clean error', 'gap', "timm's error"],
        ['imagenet', '1000', '0.1889', '', '', '0.1889'],
        ['imagenet_a', '1000', '0.7892', '0.0534', '+0.7358', '0.7892'],
        ['imagenet_real', '1000', '0.1368', '0.1800', '-0.0432', '0.1368']]
    assert sheet.rows[1][2].fraction_interval == '0.7628 to 0.8133'
    gap, (low, high) = sheet.rows[1][4], compute_wilson_interval(.7892, 1000)
    clean = compute_wilson_interval(.0534, 1000)
    assert (gap.low, gap.high) == pytest.approx((low - clean[1], high - clean[0]))


def test_example_in_the_docs():
    """With the published numbers of images, 10,000 of them clean ones of the two hundred classes."""
    counts = {'imagenet': 50000, 'imagenet_a': 7500, 'imagenet_r': 30000, 'imagenet_sketch': 50000,
              'imagenet_v2_matched_frequency': 10000}
    sheet, = pit_s(names=list(counts)[1:], count=counts).sheets
    assert render_text(sheet) in (Path(__file__).parents[2] / 'docs' / 'shifts.md').read_text()


def test_missing_clean_images_are_dashes_and_gaps():
    results = results_of({('imagenet_a', 'top1_error'): .5, ('imagenet_sketch', 'top1_error'): .5,
                          ('in9_mixed_same', 'top1_error'): .25, ('in9_mixed_rand', 'top1_error'): .5},
                         argv=['eval-shifts', '--model', 'm', '--shifts', 'imagenet_a=A', 'in9=B'])
    table, bg_gap = results.sheets
    assert [row[-2:] for row in get_rows(table)[1:]] == [['-', '-']] * 4
    assert get_rows(bg_gap)[1] == ['BG-gap', '+0.2500']
    command = 'pit-downstream eval-shifts --model m --shifts imagenet_a=A in9=B'
    assert [(gap.what, gap.command) for gap in results.gaps] == [
        ('no gap of imagenet_a, imagenet_sketch: error of imagenet not measured', f'{command} --data DIR'),
        ('no gap of in9_mixed_same, in9_mixed_rand: error of in9_original not measured',
         f'{command} in9_original=DIR')]


def test_selected_shift_that_was_not_measured_is_a_dash_and_a_gap():
    results = results_of({('imagenet', 'top1_error'): .2}, names=['imagenet_sketch=DIR', 'imagenet_real'])
    assert get_rows(results.sheets[0])[2:] == [['imagenet_sketch', '-', '-', '0.2000', '-'],
                                               ['imagenet_real', '-', '-', '-', '-']]
    gap, = results.gaps
    assert (gap.what, gap.command) == ('imagenet_sketch, imagenet_real not measured', 'pit-downstream eval-shifts '
                                       '--model m --shifts imagenet_sketch=DIR imagenet_real')


def test_models_are_compared_by_errors_and_gaps():
    sheet = Shifts().compare_models([pit_s(), results_of({('imagenet', 'top1_error'): .1, (
        'imagenet_sketch', 'top1_error'): .7}, 'other')])
    rows = {row[0].text: [f'**{cell.text}**' if cell.is_best else cell.text for cell in row[1:]] for row in sheet.rows}
    assert rows['imagenet sketch'] == ['**68.7**', '70.0'] and rows['imagenet'] == ['18.9', '**10.0**']
    assert rows['imagenet sketch gap'] == ['**+49.8**', '+60.0'] and rows['imagenet a'] == ['78.9', '–']
    assert rows['imagenet real error'] == ['13.7', '–'] and 'imagenet a error' not in rows


def test_csv_and_json_have_every_record():
    results = pit_s(names=['imagenet_a=DIR'])
    rows = list(csv.DictReader(io.StringIO(results.to_csv())))
    assert len(rows) == sum(map(len, results.tables.values())) == 9
    row = next(row for row in rows if row['dataset'] == 'imagenet_a(images=1000)')
    assert (row['metric'], row['count'], float(row['low'])) == ('top1_error', '1000',
                                                                compute_wilson_interval(1 - .2108, 1000)[0])
    whole = json.loads(results.to_json())
    assert whole['model'] == PIT_S and len(whole['records']) == 9
    assert set(whole['summary']) == {'imagenet_a_error', 'imagenet_a_gap'}
    assert all(estimate['low'] < estimate['value'] < estimate['high'] for estimate in whole['summary'].values())


def test_table_under_two_names_is_exported_once():
    """A custom shift may have ImageNet's images as its clean ones."""
    results = results_of({('imagenet', 'top1_error'): .2, ('shift_fog', 'top1_error'): .5})
    results.tables['clean'] = results.tables['imagenet']
    assert len(results.records) == 2 and results.summary['shift_fog_gap'].value == pytest.approx(.3)


@pytest.mark.parametrize('dataset, expected', [
    ('imagenet_a(images=9)', True), ('imagenet_v2_top_images(images=9)', True), ('in9_original', True),
    ('shift_fog(images=9)', True), ('imagenet(images=9)', False), ('imagenet_c(images=9)', False), ('folder', False)])
def test_shifts_are_recognized_by_their_names(dataset, expected):
    assert shifts.is_shift(dataset) == expected
