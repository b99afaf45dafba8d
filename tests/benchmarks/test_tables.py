"""AlexNet's table as text, CSV and JSON: published numbers in, the same numbers out."""

import csv
import io
import json

import pytest

from pit_downstream.benchmarks import imagenet_c, tables
from pit_downstream.benchmarks.base import compute_wilson_interval
from pit_downstream.benchmarks.imagenet_c import ALEXNET, ALEXNET_CLEAN, CORRUPTIONS, ERROR, SEVERITIES
from pit_downstream.results.records import Table
from tests.benchmarks.test_imagenet_c import table_of

ALEX = table_of(ALEXNET, ALEXNET_CLEAN)


def test_text_has_a_row_for_each_corruption():
    lines = imagenet_c.format_table(ALEX, ['fog', 'snow'], SEVERITIES).splitlines()
    assert lines == ['top-1 error       1       2       3       4       5    mean      CE',
                     'clean                                                0.4348',
                     'fog          0.6747  0.7605  0.8438  0.8726  0.9450  0.8193  1.0000',
                     'snow         0.7173  0.8839  0.8647  0.9187  0.9495  0.8668  1.0000']


def test_gaps_are_dashes_and_never_averaged():
    less = Table('m', 'imagenet', [record for record in ALEX.records if record.condition != 'fog(severity=3)'])
    line = imagenet_c.format_table(less, ['fog'], SEVERITIES).splitlines()[-1]
    assert line.split() == ['fog', '0.6747', '0.7605', '-', '0.8726', '0.9450', '-', '-']
    assert imagenet_c.format_summary(less, CORRUPTIONS, SEVERITIES).startswith(
        'no mCE: no top1_error of m on imagenet under fog(severity=3); to fill the gap: pit-downstream eval-imagenet-')


def test_the_summary_names_value_and_interval():
    lines = imagenet_c.format_summary(ALEX, CORRUPTIONS, SEVERITIES).splitlines()
    assert [line[:21] for line in lines] == [
        'mCE            1.0000', 'relative mCE   1.0000', 'mean accuracy  0.2110', 'at severity 1  0.3709',
        'at severity 2  0.2660', 'at severity 3  0.1947', 'at severity 4  0.1349', 'at severity 5  0.0885']
    assert all('  (95 %: ' in line for line in lines)


def test_a_set_without_alexnets_errors_has_a_mean_accuracy():
    lines = imagenet_c.format_summary(table_of({'caustic_refraction': [.1, .2, .3, .4, .5]}, .1, 100),
                                  ['caustic_refraction'], SEVERITIES).splitlines()
    assert len(lines) == 1 and lines[0].startswith('mean accuracy of the 5 above  0.7000  (95 %: ')


def test_without_the_clean_error_there_is_an_mce():
    lines = imagenet_c.format_summary(Table('m', 'imagenet', ALEX.records[1:]), CORRUPTIONS, SEVERITIES).splitlines()
    assert len(lines) == 8 and lines[0].startswith('mCE            1.0000  (95 %: ')
    assert lines[-1] == 'no relative mCE: no top1_error of m on imagenet under clean'


def test_alexnets_errors_are_for_imagenet_alone():
    other = Table('m', "folder(root='cifar/test')", ALEX.records)
    assert imagenet_c.format_table(other, ['fog'], SEVERITIES).splitlines()[0].split() == [
        'top-1', 'error', '1', '2', '3', '4', '5', 'mean']
    lines = imagenet_c.format_summary(other, CORRUPTIONS, SEVERITIES).splitlines()
    assert lines[0].startswith('mean accuracy  0.2110  (95 %: ') and 'not on cifar/test' in lines[-1]
    summary = json.loads(imagenet_c.format_json(other, CORRUPTIONS, SEVERITIES))
    assert summary['summary'].keys() == summary['intervals'].keys() and 'mCE' not in summary['summary']
    assert summary['summary']['clean_accuracy'] == 1 - ALEXNET_CLEAN
    assert tables.format_image_count(other) == '50000 images'


def test_the_command_of_the_run_is_completed():
    less = Table('m', 'imagenet', [record for record in ALEX.records if record.condition != 'fog(severity=3)'])
    text = imagenet_c.format_summary(less, CORRUPTIONS, SEVERITIES, run='python t.py --model m --limit 9')
    assert text.splitlines()[0].endswith(
        'to fill the gap: python t.py --model m --limit 9 --corruptions fog --severities 3')


def test_csv_and_json_hold_every_record():
    rows = list(csv.DictReader(io.StringIO(tables.format_records_csv(ALEX.records))))
    assert len(rows) == 76 and rows[0]['corruption'] == rows[0]['severity'] == ''
    row = next(row for row in rows if row['condition'] == 'fog(severity=3)')
    assert (row['corruption'], row['severity'], row['metric'], row['count']) == ('fog', '3', ERROR, '50000')
    assert (float(row['low']), float(row['high'])) == compute_wilson_interval(.84378, 50000)
    assert float(row['value']) == .84378
    whole = json.loads(imagenet_c.format_json(ALEX, CORRUPTIONS, SEVERITIES))
    assert whole['summary']['mCE'] == 1 and len(whole['records']) == 76 and len(whole['intervals']['mCE']) == 2
    part = json.loads(imagenet_c.format_json(table_of({'fog': [.1, .2, .3, .4, .5]}, .1, 100), ['fog'], [1, 5]))
    assert part['summary'] is None and part['chosen']['mean_accuracy'] == pytest.approx(.7)
    first, second = compute_wilson_interval(.1, 100), compute_wilson_interval(.5, 100)
    assert part['chosen']['interval'] == pytest.approx([1 - (first[1] + second[1]) / 2, 1 - (first[0] + second[0]) / 2])
