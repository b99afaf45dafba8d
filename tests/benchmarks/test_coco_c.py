"""COCO-C: the published table of Faster R-CNN gives its published summary, and no gap is averaged."""

import json

import pytest

from pit_downstream.benchmarks import coco_c
from pit_downstream.benchmarks.coco_c import CORRUPTIONS, SEVERITIES, CocoC, make_condition
from pit_downstream.benchmarks.imagenet_c import HOLD_OUT
from pit_downstream.results.condition import CLEAN
from pit_downstream.results.records import MissingMeasurement
from tests.results.builders import get_rows, make_results, without

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
ARGV = ['tools/eval_coco_c.py', '--model', 'CONFIG', '--weights', 'CHECKPOINT']


def values_of(rows, clean, *, metrics=('AP',), **arguments):
    values = {CLEAN: clean} | {make_condition(name, severity, **arguments): value for name, row in rows.items()
                               for severity, value in zip(SEVERITIES, row, strict=True)}
    return {(condition, metric): value / 100 for metric in metrics for condition, value in values.items()}


def results_of(*values, benchmark=None, **options):
    merged = {key: value for several in values for key, value in several.items()}
    return make_results(benchmark or CocoC(), merged, **{'dataset': 'd', 'count': 5000, 'argv': ARGV} | options)


PUBLISHED = results_of(values_of(FASTER_RCNN, CLEAN_AP))


def test_published_table_gives_the_published_summary():
    summary = PUBLISHED.summary
    assert [100 * summary[f'{name}(AP)'].value for name in ('P', 'mPC', 'rPC')] == pytest.approx(
        [36.33, 18.20, 50.11], abs=.02)
    for name, mean in MEANS.items():
        assert 100 * summary[f'mPC(AP, {name})'].value == pytest.approx(mean, abs=.05)  # the table has one digit
    assert all(estimate.low is None for estimate in summary.values())  # AP is no rate of images


def test_hold_outs_do_not_count():
    fifteen = {name: row for name, row in FASTER_RCNN.items() if name not in HOLD_OUT}
    assert len(fifteen) == 15 and results_of(values_of(fifteen, CLEAN_AP)).summary == PUBLISHED.summary


def test_severities_are_averaged_over_the_fifteen():
    by_hand = sum(FASTER_RCNN[name][4] for name in CORRUPTIONS) / 1500
    assert PUBLISHED.summary['mPC(AP, severity=5)'].value == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize('absent', ['clean', 'fog(severity=3)', 'jpeg_compression(severity=5)'])
def test_missing_measurement_raises_with_the_command(absent):
    """mmdet's tool counts a missing severity as AP 0, and a missing clean run as rPC = inf."""
    with pytest.raises(MissingMeasurement) as caught:
        _ = without(PUBLISHED, absent).summary
    text = str(caught.value)
    assert f'no AP of m on d under {absent}' in text
    assert 'pit-downstream eval-coco-c --model CONFIG --weights CHECKPOINT' in text
    if absent != 'clean':
        name, severity = absent.split('(')[0], absent[-2]
        assert text.endswith(f'--corruptions {name} --severities {severity}')


def test_every_metric_is_required_everywhere():
    half = values_of({name: FASTER_RCNN[name] for name in CORRUPTIONS[:7]}, 50., metrics=['mask_AP'])
    with pytest.raises(MissingMeasurement, match=r'no mask_AP of m on d under snow\(severity=1\)'):
        _ = results_of(values_of(FASTER_RCNN, CLEAN_AP), half).summary


def test_color_orders_do_not_mix():
    bgr = CocoC(bgr=True)
    wrong = results_of(values_of(FASTER_RCNN, CLEAN_AP, order='bgr'), benchmark=bgr)
    assert wrong.summary['mPC(AP)'] == PUBLISHED.summary['mPC(AP)']
    assert str(bgr.conditions()[1]) == "gaussian_noise(order='bgr', severity=1)"
    mixed = results_of(values_of(FASTER_RCNN, CLEAN_AP), benchmark=bgr, argv=())
    with pytest.raises(MissingMeasurement, match=r"under gaussian_noise\(order='bgr', severity=1\).* --model m --bgr "):
        _ = mixed.summary


def test_detector_without_detections_has_no_rpc():
    blind = results_of(values_of({name: (0,) * 5 for name in CORRUPTIONS}, 0.)).summary
    assert (blind['P(AP)'].value, blind['mPC(AP)'].value, 'rPC(AP)' in blind) == (0, 0, False)


def test_table_has_a_row_per_corruption_and_their_mean():
    part = results_of(values_of({name: FASTER_RCNN[name] for name in ('fog', 'snow')}, CLEAN_AP),
                      benchmark=CocoC(('fog', 'snow')))
    table, summary = part.sheets
    assert get_rows(table) == [
        ['AP', '1', '2', '3', '4', '5', 'mean'], ['clean', '', '', '', '', '', '0.3633'],
        ['fog', '0.3270', '0.3130', '0.3000', '0.2990', '0.2800', '0.3038'],
        ['snow', '0.2610', '0.1760', '0.1790', '0.1340', '0.1230', '0.1746'],
        ['mean', '0.2940', '0.2445', '0.2395', '0.2165', '0.2015', '0.2392']]
    assert get_rows(summary) == [['metric', 'P', 'mean of the 10 above'], ['AP', '0.3633', '0.2392']]
    gap, = part.gaps
    assert gap.what.startswith('no mPC: 65 conditions (gaussian_noise, shot_noise, ')


def test_gaps_are_dashes_and_never_averaged():
    results = without(results_of(values_of({name: FASTER_RCNN[name] for name in ('fog', 'snow')}, CLEAN_AP),
                                 benchmark=CocoC(('fog', 'snow'))), 'fog(severity=3)')
    rows = get_rows(results.sheets[0])
    assert rows[-3] == ['fog', '0.3270', '0.3130', '-', '0.2990', '0.2800', '-']
    assert rows[-1] == ['mean', '0.2940', '0.2445', '-', '0.2165', '0.2015', '-']
    assert get_rows(results.sheets[1])[1] == ['AP', '0.3633', '-']
    assert without(PUBLISHED, 'fog(severity=3)').gaps[0].what == 'no mPC: 1 condition (fog) not measured'
    assert json.loads(results.to_json())['summary'] is None


def test_summary_has_a_row_per_metric():
    both = results_of(values_of(FASTER_RCNN, CLEAN_AP, metrics=['AP', 'AP50']))
    assert get_rows(both.sheets[-1]) == [['metric', 'P', 'mPC', 'rPC'], ['AP', '0.3633', '0.1821', '0.5012'],
                                         ['AP50', '0.3633', '0.1821', '0.5012']]
    alone = results_of({(CLEAN, 'AP'): .3633}, benchmark=CocoC(()))
    assert [get_rows(sheet) for sheet in alone.sheets] == [[['metric', 'P'], ['AP', '0.3633']]] and alone.gaps == []


def test_masks_have_their_own_table():
    masks = results_of(values_of(FASTER_RCNN, CLEAN_AP, metrics=['AP', 'AP50', 'mask_AP', 'mask_AP50']))
    assert [sheet.columns[0] for sheet in masks.sheets] == ['AP', 'mask_AP', 'metric']


def test_hold_out_corruption_that_was_not_measured_is_a_gap():
    """It is no part of mPC."""
    results = results_of({(CLEAN, 'AP'): .3633}, benchmark=CocoC(('spatter',), (1, 2)))
    gap, = results.gaps
    assert gap.what == '2 conditions (spatter) not measured'
    assert gap.command.endswith('--corruptions spatter --severities 1 2')


def test_models_are_compared_by_mean_ap_and_mpc():
    half = results_of(values_of({name: [value / 2 for value in row] for name, row in FASTER_RCNN.items()}, CLEAN_AP),
                      model='half')
    rows = {row[0].text: row[1:] for row in CocoC().compare_models([half, PUBLISHED]).rows}
    assert [cell.value for cell in rows['fog']] == pytest.approx([.1519, .3038])
    assert [cell.value for cell in rows['rPC(AP)']] == pytest.approx([.5012 / 2, .5012], abs=1e-4)
    assert [cell.is_best for cell in rows['mPC(AP)']] == [False, True]


def test_conditions_and_metrics():
    assert len(CocoC().conditions()) == 76 and CocoC.tasks == ('detector',)
    assert coco_c.METRICS[0] == 'AP' and coco_c.METRICS[6] == 'mask_AP'
    assert CocoC(('spatter',), (1,)).required() == ((CLEAN, 'AP'), (make_condition('spatter', 1), 'AP'))
    assert len(CocoC(('fog',), (1,)).required()) == 76
