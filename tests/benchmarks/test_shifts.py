"""Published accuracies in, the published gaps out."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pit_downstream.benchmarks import shifts
from pit_downstream.benchmarks.base import compute_wilson_interval
from pit_downstream.results.condition import CLEAN
from pit_downstream.results.records import MissingMeasurement, Record, Table
from pit_downstream.utils.registry import BENCHMARKS

PIT_S = "pit_s(weights='timm/pit_s_224.in1k')"


def tables_of(values, model='m', count=1000):
    """Tables by dataset from errors by (dataset, metric)."""
    records = {}
    for (dataset, metric), value in values.items():
        records.setdefault(dataset, []).append(Record(model, f'{dataset}(images={count})', 'clean', metric, value,
                                                      count, 0))
    return {name: Table(model, these[0].dataset, these) for name, these in records.items()}


def pit_s():
    """Tables with timm's published errors of PiT-S, also on the clean images of the classes of ImageNet-A and -R."""
    errors = {shifts.get_error_key(name): error for name, error in shifts.get_timm_errors(PIT_S).items()}
    errors |= {shifts.get_clean_key(name): 1 - accuracy / 100
               for name, accuracy in (('imagenet_a', 94.660), ('imagenet_r', 94.600))}
    errors[shifts.get_clean_key('imagenet_real')] = .18
    return tables_of({(key.dataset, key.metric): error for key, error in errors.items()}, PIT_S)


@pytest.mark.parametrize('original, same, random, wanted', [
    (.943, .836, .734, .102), (.956, .862, .789, .073), (.967, .893, .835, .058)])
def test_bg_gap_is_the_published_one(original, same, random, wanted):
    """VGG16-BN, ResNet-50 and ResNet-152 in the README of MadryLab/backgrounds_challenge."""
    tables = tables_of({('in9_original', 'top1_error'): 1 - original, ('in9_mixed_same', 'top1_error'): 1 - same,
                        ('in9_mixed_rand', 'top1_error'): 1 - random})
    summary = shifts.summarize(tables)
    assert summary['bg_gap'] == pytest.approx(wanted)
    assert summary['in9_mixed_rand_gap'] == pytest.approx(original - random)
    low, high = shifts.compute_intervals(tables)['bg_gap']
    assert low < summary['bg_gap'] < high
    ends = compute_wilson_interval(1 - random, 1000), compute_wilson_interval(1 - same, 1000)
    assert (low, high) == (pytest.approx(ends[0][0] - ends[1][1]), pytest.approx(ends[0][1] - ends[1][0]))


def test_gap_of_a_custom_shift_is_to_its_clean_images():
    """Not to ImageNet's, and timm says nothing of them."""
    tables = tables_of({('imagenet', 'top1_error'): .2, ('imagenet_sketch', 'top1_error'): .7,
                        ('clean', 'top1_error'): .25, ('shift_fog', 'top1_error'): .75}, PIT_S)
    assert shifts.summarize(tables) == {'imagenet_sketch_error': .7, 'imagenet_sketch_gap': pytest.approx(.5),
                                        'shift_fog_error': .75, 'shift_fog_gap': .5}
    rows = {line.split()[0]: line.split() for line in
            shifts.format_table(tables, ['imagenet_sketch', 'shift_fog']).splitlines()[1:]}
    assert list(rows) == ['imagenet', 'clean', 'imagenet_sketch', 'shift_fog']
    assert (rows['imagenet'][-1], rows['clean'][-1]) == ('0.1889', '-')


def test_gaps_are_to_the_clean_images_of_the_same_classes():
    """PiT-S: 21.080 % on ImageNet-A, 94.660 % on the clean images of its classes; 43.893 and 94.600 % for -R."""
    summary = shifts.summarize(pit_s())
    assert summary['imagenet_a_error'] == pytest.approx(1 - .21080)
    assert summary['imagenet_a_gap'] == pytest.approx(.94660 - .21080)
    assert summary['imagenet_r_gap'] == pytest.approx(.94600 - .43893)
    assert summary['imagenet_sketch_gap'] == pytest.approx(.81114 - .31325)
    assert summary['imagenet_v2_matched_frequency_gap'] == pytest.approx(.81114 - .69800)
    assert summary['imagenet_real_gap'] == pytest.approx(1 - .86319 - .18)
    assert 'bg_gap' not in summary and 'imagenet_gap' not in summary
    assert BENCHMARKS['shifts'].conditions == (CLEAN,) and BENCHMARKS['shifts'].summarize(pit_s()) == summary


def test_a_gap_without_its_clean_error_is_refused():
    tables = pit_s()
    only_top1 = Table(PIT_S, 'imagenet', [tables['imagenet'].record((CLEAN, 'top1_error'))])
    with pytest.raises(MissingMeasurement, match='no imagenet_a_clean_error of .* on imagenet under clean; to fill '
                       'the gap: pit-downstream eval-shifts --model pit_s --data DIR with the clean images'):
        shifts.compute_gap(tables | {'imagenet': only_top1}, 'imagenet_a')
    del tables['imagenet']
    with pytest.raises(MissingMeasurement, match='no top1_error of .* on imagenet under clean'):
        shifts.compute_gap(tables, 'imagenet_sketch')
    with pytest.raises(MissingMeasurement, match='--shifts in9_mixed_same=DIR and the other flags'):
        shifts.compute_bg_gap(tables)
    with pytest.raises(MissingMeasurement):
        shifts.summarize(tables, ['imagenet_a'])
    assert json.loads(shifts.format_json(tables, ['imagenet_a']))['summary'] is None


def test_published_errors_are_found_by_the_weights():
    assert shifts.get_timm_errors(PIT_S)['imagenet_a'] == pytest.approx(1 - .2108)
    assert 'imagenet_a' not in shifts.get_timm_errors("resnet50(weights='timm/resnet50.tv_in1k')")
    assert not shifts.get_timm_errors("pit_s(weights='mine.pth@01234567')") and not shifts.get_timm_errors('pit_s')
    import timm
    known = timm.list_pretrained()
    assert all(name in known for name in shifts._TIMM)


def test_text_has_a_line_for_each_shift():
    names = ['imagenet_a', 'imagenet_real']
    lines = shifts.format_table(pit_s(), names).splitlines()
    assert lines == ['top-1 error    images   error              95 %   clean      gap    timm',
                     'imagenet         1000  0.1889  0.1658 to 0.2143                   0.1889',
                     'imagenet_a       1000  0.7892  0.7628 to 0.8133  0.0534   0.7358  0.7892',
                     'imagenet_real    1000  0.1368  0.1169 to 0.1595  0.1800  -0.0432  0.1368']
    assert shifts.format_summary(pit_s(), names) == ''


def test_the_example_in_the_docs():
    """With the published numbers of images, 10,000 of them clean ones of the two hundred classes."""
    counts = {'imagenet': 50000, 'imagenet_a': 7500, 'imagenet_r': 30000, 'imagenet_sketch': 50000,
              'imagenet_v2_matched_frequency': 10000}
    tables = {name: Table(PIT_S, name, [replace(record, count=counts[name]) for record in table.records])
              for name, table in pit_s().items()}
    text = shifts.format_table(tables, list(counts)[1:])
    assert text in (Path(__file__).parents[2] / 'docs' / 'shifts.md').read_text()


def test_text_reports_missing_clean_images():
    tables = tables_of({('imagenet_a', 'top1_error'): .5, ('imagenet_sketch', 'top1_error'): .5,
                        ('in9_mixed_same', 'top1_error'): .25, ('in9_mixed_rand', 'top1_error'): .5})
    lines = shifts.format_table(tables, list(tables)).splitlines()
    assert [line.split()[-2:] for line in lines[1:]] == [['-', '-']] * 4
    said = shifts.format_summary(tables, list(tables)).splitlines()
    assert said[0].startswith('BG-gap  0.2500  (95 %: ')
    assert [line.split(':')[0] for line in said[1:]] == [
        'no gap of imagenet_a', 'no gap of imagenet_sketch', 'no gap of in9_mixed_same, in9_mixed_rand']


def test_csv_and_json_hold_every_record():
    tables = pit_s()
    rows = list(csv.DictReader(io.StringIO(shifts.format_csv(tables))))
    assert len(rows) == sum(map(len, tables.values())) == 9
    row = next(row for row in rows if row['dataset'] == 'imagenet_a(images=1000)')
    assert (row['metric'], row['count'], float(row['low'])) == ('top1_error', '1000',
                                                                compute_wilson_interval(1 - .2108, 1000)[0])
    whole = json.loads(shifts.format_json(tables, ['imagenet_a']))
    assert whole['model'] == PIT_S and len(whole['records']) == 9
    assert set(whole['summary']) == {'imagenet_a_error', 'imagenet_a_gap'}
    assert set(whole['intervals']) == {'imagenet_a_gap'}
