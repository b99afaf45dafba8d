"""COCO-C's summary: the published table of Faster R-CNN in, its published summary out; and no gap is averaged."""

import json

import pytest

from pit_downstream.benchmarks import coco_c, tables
from pit_downstream.benchmarks.coco_c import CORRUPTIONS, SEVERITIES, make_condition, summarize
from pit_downstream.benchmarks.imagenet_c import HOLD_OUT
from pit_downstream.results.condition import CLEAN
from pit_downstream.results.records import MissingMeasurement, Record, Table
from pit_downstream.utils.registry import BENCHMARKS

# Box AP x 100 by severity of Faster R-CNN R-50-FPN 1x on COCO val 2017: bethgelab/robust-detection-benchmark,
# raw-data/coco/faster_rcnn_r50_fpn_1x_coco_results.pkl, whose own summary is P 36.33, mPC 18.20, rPC 50.11
FASTER_RCNN = {
    'gaussian_noise': (29.0, 24.2, 17.4, 10.4, 4.3), 'shot_noise': (28.8, 23.8, 17.7, 9.6, 5.3),
    'impulse_noise': (20.0, 17.9, 16.1, 10.3, 5.0), 'defocus_blur': (27.4, 23.0, 16.4, 11.8, 8.5),
    'glass_blur': (22.3, 16.4, 6.8, 5.5, 3.8), 'motion_blur': (28.7, 21.8, 14.3, 8.5, 5.8),
    'zoom_blur': (12.8, 8.7, 6.9, 5.1, 4.4), 'snow': (26.1, 17.6, 17.9, 13.4, 12.3),
    'frost': (29.1, 23.6, 20.0, 19.5, 17.2), 'fog': (32.7, 31.3, 30.0, 29.9, 28.0),
    'brightness': (35.6, 34.2, 32.6, 30.4, 28.0), 'contrast': (32.8, 30.6, 26.5, 16.6, 6.5),
    'elastic_transform': (29.0, 25.1, 20.2, 16.8, 12.8), 'pixelate': (26.9, 22.9, 9.8, 5.0, 2.8),
    'jpeg_compression': (25.1, 19.4, 15.8, 8.6, 4.3), 'speckle_noise': (30.5, 27.9, 20.4, 16.6, 12.2),
    'gaussian_blur': (33.1, 24.8, 18.0, 12.9, 6.8), 'spatter': (35.7, 29.1, 25.3, 19.9, 13.7),
    'saturate': (33.8, 31.7, 34.6, 29.5, 25.3)}
CLEAN_AP = 36.33
# The means of the same file's rows, as published
MEANS = {'gaussian_noise': 17.06, 'zoom_blur': 7.59, 'fog': 30.36, 'jpeg_compression': 14.65}


def table_of(rows, clean, *, metric='AP', **variant):
    values = {CLEAN: clean} | {make_condition(name, severity, **variant): value for name, row in rows.items()
                               for severity, value in zip(SEVERITIES, row, strict=True)}
    return Table('m', 'd', [Record('m', 'd', str(key), metric, value / 100, 5000, 0) for key, value in values.items()])


PUBLISHED = table_of(FASTER_RCNN, CLEAN_AP)


def test_the_published_table_gives_the_published_summary():
    summary = summarize(PUBLISHED)
    got = [100 * summary[f'{name}(AP)'] for name in ('P', 'mPC', 'rPC')]
    assert got == pytest.approx([36.33, 18.20, 50.11], abs=.02)
    for name, mean in MEANS.items():
        assert 100 * summary[f'mPC(AP, {name})'] == pytest.approx(mean, abs=.05)  # the table has one digit


def test_the_hold_outs_do_not_count():
    without = {name: row for name, row in FASTER_RCNN.items() if name not in HOLD_OUT}
    assert len(without) == 15 and summarize(table_of(without, CLEAN_AP)) == summarize(PUBLISHED)


def test_severities_are_averaged_over_the_fifteen():
    by_hand = sum(FASTER_RCNN[name][4] for name in CORRUPTIONS) / 1500
    assert summarize(PUBLISHED)['mPC(AP, severity=5)'] == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize('lacking', ['clean', 'fog(severity=3)', 'jpeg_compression(severity=5)'])
def test_missing_measurement_raises_with_the_command(lacking):
    """mmdet's tool counts a missing severity as AP 0, and a missing clean run as rPC = inf."""
    less = Table('m', 'd', [record for record in PUBLISHED.records if record.condition != lacking])
    with pytest.raises(MissingMeasurement) as raised:
        summarize(less)
    text = str(raised.value.args[0])
    assert f'no AP of m on d under {lacking}' in text
    assert 'pit-downstream eval-coco-c --model CONFIG --weights CHECKPOINT' in text
    if lacking != 'clean':
        name, severity = lacking.split('(')[0], lacking[-2]
        assert f'--corruptions {name} --severities {severity}' in text


def test_every_metric_must_be_there_everywhere():
    half = table_of({name: FASTER_RCNN[name] for name in CORRUPTIONS[:7]}, 50., metric='mask_AP')
    both = Table('m', 'd', [*PUBLISHED.records, *half.records])
    with pytest.raises(MissingMeasurement, match=r'no mask_AP of m on d under snow\(severity=1\)'):
        summarize(both)


def test_color_orders_do_not_mix():
    wrong = table_of(FASTER_RCNN, CLEAN_AP, order='bgr')
    assert summarize(wrong, order='bgr')['mPC(AP)'] == summarize(PUBLISHED)['mPC(AP)']
    with pytest.raises(MissingMeasurement, match=r"under gaussian_noise\(order='bgr', severity=1\).* --bgr and the"):
        summarize(PUBLISHED, order='bgr')


def test_a_blind_detector_has_no_rpc():
    blind = summarize(table_of({name: (0,) * 5 for name in CORRUPTIONS}, 0.))
    assert (blind['P(AP)'], blind['mPC(AP)'], 'rPC(AP)' in blind) == (0, 0, False)


def test_the_text_has_a_row_for_each_corruption_and_their_mean():
    lines = coco_c.format_table(PUBLISHED, 'AP', ['fog', 'snow'], SEVERITIES).splitlines()
    assert lines == ['AP          1       2       3       4       5    mean',
                     'clean                                          0.3633',
                     'fog    0.3270  0.3130  0.3000  0.2990  0.2800  0.3038',
                     'snow   0.2610  0.1760  0.1790  0.1340  0.1230  0.1746',
                     'mean   0.2940  0.2445  0.2395  0.2165  0.2015  0.2392']


def test_gaps_are_dashes_and_never_averaged():
    less = Table('m', 'd', [record for record in PUBLISHED.records if record.condition != 'fog(severity=3)'])
    lines = coco_c.format_table(less, 'AP', ['fog', 'snow'], SEVERITIES).splitlines()
    assert lines[-3].split() == ['fog', '0.3270', '0.3130', '-', '0.2990', '0.2800', '-']
    assert lines[-1].split() == ['mean', '0.2940', '0.2445', '-', '0.2165', '0.2015', '-']
    assert coco_c.format_summary(less, CORRUPTIONS, SEVERITIES).startswith(
        'no mPC: no AP of m on d under fog(severity=3); to fill the gap: pit-downstream eval-coco-c')


def test_the_summary_text():
    both = Table('m', 'd', [*PUBLISHED.records, *table_of(FASTER_RCNN, CLEAN_AP, metric='AP50').records])
    assert [line.split() for line in coco_c.format_summary(both, CORRUPTIONS, SEVERITIES).splitlines()] == [
        ['P', 'mPC', 'rPC'], ['AP', '0.3633', '0.1821', '0.5012'], ['AP50', '0.3633', '0.1821', '0.5012']]
    part = coco_c.format_summary(table_of({'fog': FASTER_RCNN['fog']}, CLEAN_AP), ['fog'], [1, 5])
    assert part.splitlines()[1:] == ['         P  mean of the 2 above', 'AP  0.3633               0.3035']
    alone = coco_c.format_summary(Table('m', 'd', PUBLISHED.records[:1]), [], SEVERITIES)
    assert alone.split() == ['P', 'AP', '0.3633']


def test_csv_and_json_hold_every_record():
    assert len(tables.format_records_csv(PUBLISHED.records).splitlines()) == 1 + 1 + 19 * 5
    whole = json.loads(coco_c.format_json(PUBLISHED))
    assert whole['summary'] == summarize(PUBLISHED) and len(whole['records']) == 96
    assert json.loads(coco_c.format_json(Table('m', 'd')))['summary'] is None


def test_it_is_registered():
    benchmark = BENCHMARKS['coco_c']
    assert len(benchmark.conditions) == 76 and benchmark.metrics[0] == 'AP' and benchmark.summarize is summarize
    assert coco_c.METRICS[6] == 'mask_AP'
