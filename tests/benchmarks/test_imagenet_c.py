"""AlexNet's own table gives 1 exactly; the normalizers are the published ones; a small table worked by hand."""

import json
import shlex

import pytest

from pit_downstream.benchmarks import imagenet_c
from pit_downstream.benchmarks.imagenet_c import ALEXNET, ALEXNET_CLEAN, CORRUPTIONS, ImageNetC, make_condition
from pit_downstream.corruptions.base import VARIANTS
from pit_downstream.results.condition import CLEAN
from pit_downstream.results.intervals import compute_wilson_interval
from pit_downstream.results.records import MissingMeasurement
from pit_downstream.utils.errors import InputError
from tests.results.builders import get_rows, make_results, without

# Divisors in AugMix, easyrobust, FAN and RVT, six digits
NORMALIZERS = {
    'gaussian_noise': .886428, 'shot_noise': .894468, 'impulse_noise': .922640, 'defocus_blur': .819880,
    'glass_blur': .826268, 'motion_blur': .785948, 'zoom_blur': .798360, 'snow': .866816, 'frost': .826572,
    'fog': .819324, 'brightness': .564592, 'contrast': .853204, 'elastic_transform': .646056, 'pixelate': .717840,
    'jpeg_compression': .606500}


def results_of(errors, clean=ALEXNET_CLEAN, benchmark=None, count=50000, **options):
    """errors: by corruption, five each. clean: None without clean images."""
    benchmark = benchmark or ImageNetC()
    values = {CLEAN: clean} if clean is not None else {}
    values |= {make_condition(name, severity, **benchmark.arguments): value for name, row in errors.items()
               for severity, value in enumerate(row, 1)}
    return make_results(benchmark, values, count=count, **options)


def values_of(results):
    return {name: estimate.value for name, estimate in results.summary.items()}


def intervals_of(results):
    return {name: (estimate.low, estimate.high) for name, estimate in results.summary.items()}


ALEX = results_of(ALEXNET)


def test_alexnet_is_one():
    summary = values_of(ALEX)
    assert summary['mCE'] == 1 and summary['relative_mCE'] == 1
    assert {summary[f'CE({name})'] for name in CORRUPTIONS} == {1.}
    assert {summary[f'relative_CE({name})'] for name in CORRUPTIONS} == {1.}
    assert summary['clean_accuracy'] == 1 - .4348
    assert summary['mean_accuracy'] == pytest.approx(1 - sum(NORMALIZERS.values()) / 15, abs=1e-6)


@pytest.mark.parametrize('name', CORRUPTIONS)
def test_severities_reproduce_the_published_normalizer(name):
    assert sum(ALEXNET[name]) / 5 == pytest.approx(NORMALIZERS[name], abs=1e-6)
    summary = values_of(results_of(dict.fromkeys(CORRUPTIONS, [.5] * 5), .2))
    assert summary[f'CE({name})'] == pytest.approx(.5 / NORMALIZERS[name], rel=2e-6)


def test_table_worked_by_hand():
    """Clean error 0.2348; brightness at .1 .2 .3 .4 .5, all others at AlexNet's errors less 0.2."""
    errors = {name: [value - .2 for value in values] for name, values in ALEXNET.items()}
    errors['brightness'] = [.1, .2, .3, .4, .5]
    summary = values_of(results_of(errors, .2348))
    assert summary['CE(brightness)'] == pytest.approx(1.5 / 2.82296)
    assert summary['CE(fog)'] == pytest.approx((4.09662 - 1) / 4.09662)
    # both clean errors drop by 0.2 as well: the others stay at 1
    assert summary['relative_CE(fog)'] == pytest.approx(1)
    assert summary['relative_CE(brightness)'] == pytest.approx((1.5 - 5 * .2348) / (2.82296 - 5 * .4348))
    assert summary['mCE'] == pytest.approx(sum(
        1 - .2 / NORMALIZERS[name] for name in CORRUPTIONS if name != 'brightness') / 15 + 1.5 / 2.82296 / 15)
    assert summary['relative_mCE'] == pytest.approx((14 + .326 / .64896) / 15)
    others = sum(ALEXNET[name][0] - .2 for name in CORRUPTIONS if name != 'brightness')
    assert summary['mean_accuracy(severity=1)'] == pytest.approx(1 - (others + .1) / 15)


def test_hold_out_corruptions_have_a_ce_and_no_part_in_mce():
    results = results_of({**ALEXNET, 'spatter': [.7175] * 5})
    assert imagenet_c.compute_ce(results.table, 'spatter').value == pytest.approx(1)
    assert values_of(results)['mCE'] == 1
    with pytest.raises(InputError, match="'mine' .*no error of AlexNet is published for it"):
        imagenet_c.compute_ce(results_of({'mine': [.5] * 5}).table, 'mine')


@pytest.mark.parametrize('benchmark', [ImageNetC(jpeg_quality=85), ImageNetC(variant='hendrycks')])
def test_protocols_do_not_mix(benchmark):
    results = results_of(ALEXNET, benchmark=benchmark)
    assert values_of(results)['mCE'] == 1
    with pytest.raises(MissingMeasurement):
        ImageNetC().summarize(results)


def test_variant_of_the_authors_is_named_where_it_differs():
    assert {f'{name}:hendrycks' for name in imagenet_c.HENDRYCKS} == set(VARIANTS)
    named = [condition for condition in ImageNetC(variant='hendrycks').conditions() if 'hendrycks' in str(condition)]
    assert len(named) == 15 and str(named[0]) == "frost(severity=1, variant='hendrycks')"
    assert str(ImageNetC(jpeg_quality=85).conditions()[1]) == 'gaussian_noise(jpeg=85, severity=1)'


@pytest.mark.parametrize('options, shown', [({'severities': (0, 3)}, r'1\.\.5, got \[0\]'), (
    {'severities': ()}, 'got none'), ({'jpeg_quality': 0}, r'1\.\.100, got 0'), ({'jpeg_quality': 101}, 'got 101')])
def test_wrong_arguments_are_refused(options, shown):
    with pytest.raises(InputError, match=shown):
        ImageNetC(**options)


def test_gaps_are_named_and_never_averaged():
    errors = {name: row[:4] if name == 'snow' else row for name, row in ALEXNET.items() if name != 'fog'}
    results = results_of(errors, argv=['tools/eval_imagenet_c.py', '--model', 'm', '--limit', '9'])
    with pytest.raises(MissingMeasurement, match=r'of m on imagenet under snow\(severity=5\), fog\(severity=1\)'
                       ) as caught:
        _ = results.summary
    assert len(caught.value.keys) == 6
    gap, = results.gaps
    assert gap.what == 'no mCE: 6 conditions (snow, fog) not measured'
    assert gap.command == ('pit-downstream eval-imagenet-c --model m --limit 9 --corruptions snow fog '
                           '--severities 1 2 3 4 5')
    assert json.loads(results.to_json())['summary'] is None


def test_only_relative_mce_needs_the_clean_error():
    """A published set may be in a place without clean images."""
    rest = results_of(ALEXNET, None)
    assert rest.summary == {name: value for name, value in ALEX.summary.items()
                            if 'relative' not in name and 'clean' not in name}
    with pytest.raises(MissingMeasurement, match='no top1_error of m on imagenet under clean'):
        imagenet_c.compute_relative_ce(rest.table, 'fog')
    gap, = rest.gaps
    assert gap.what == 'no relative mCE: clean images not measured'
    assert gap.command == 'pit-downstream eval-imagenet-c --model m'


def test_command_has_the_arguments_of_the_model_and_of_the_benchmark():
    model = "pit_ti(amp='bf16', mean=0.5, num_classes=10, std=0.5, weights='x.pth@0123456789abcdef')"
    results = make_results(ImageNetC(jpeg_quality=85, variant='hendrycks', severities=(1, 3)), {}, model=model)
    words = shlex.split(results.gaps[0].command)
    assert words[:4] == ['pit-downstream', 'eval-imagenet-c', '--model', 'pit_ti(num_classes=10)']
    assert ' '.join(words).endswith('--severities 1 2 3 4 5 --variant hendrycks --jpeg-quality 85 --corruptions '
                                    + ' '.join(CORRUPTIONS))


def test_every_number_of_the_summary_is_inside_its_interval():
    summary, intervals = values_of(ALEX), intervals_of(results_of(ALEXNET, count=100))
    assert set(intervals) == set(summary) and len(summary) == 4 + 5 + 30
    assert all(intervals[name][0] < value < intervals[name][1] for name, value in summary.items())
    ends = list(zip(*(compute_wilson_interval(value, 100) for value in ALEXNET['fog']), strict=True))
    assert intervals['CE(fog)'] == pytest.approx([sum(end) / 5 / NORMALIZERS['fog'] for end in ends], rel=1e-6)
    clean, below = compute_wilson_interval(ALEXNET_CLEAN, 100), 5 * (NORMALIZERS['fog'] - ALEXNET_CLEAN)
    assert intervals['relative_CE(fog)'] == pytest.approx(
        [(sum(ends[0]) - 5 * clean[1]) / below, (sum(ends[1]) - 5 * clean[0]) / below], rel=1e-5)
    assert intervals['clean_accuracy'] == pytest.approx((1 - clean[1], 1 - clean[0]))
    first = [compute_wilson_interval(values[0], 100) for values in ALEXNET.values()]
    assert intervals['mean_accuracy(severity=1)'] == pytest.approx(
        [1 - sum(high for _, high in first) / 15, 1 - sum(low for low, _ in first) / 15])


def test_intervals_shrink_with_the_count():
    wide, narrow = (intervals_of(results_of(ALEXNET, count=count)) for count in (100, 50000))
    for name, value in (('mCE', 1), ('relative_mCE', 1), ('mean_accuracy', 1 - sum(NORMALIZERS.values()) / 15)):
        assert wide[name][0] < narrow[name][0] < value < narrow[name][1] < wide[name][1]
    low, high = zip(*(compute_wilson_interval(value, 100) for values in ALEXNET.values() for value in values),
                    strict=True)
    assert wide['mean_accuracy'] == pytest.approx((1 - sum(high) / 75, 1 - sum(low) / 75))
    by_hand = [sum(compute_wilson_interval(value, 100)[end] for value in ALEXNET[name]) / 5 / NORMALIZERS[name] / 15
               for end in (0, 1) for name in CORRUPTIONS]
    assert wide['mCE'] == pytest.approx((sum(by_hand[:15]), sum(by_hand[15:])), rel=1e-6)


def test_table_has_a_row_per_corruption_with_mean_and_ce():
    part = results_of({name: ALEXNET[name] for name in ('fog', 'snow')}, benchmark=ImageNetC(('fog', 'snow')))
    assert get_rows(part.sheets[0]) == [
        ['top1_error', '1', '2', '3', '4', '5', 'mean', 'CE'], ['clean', '', '', '', '', '', '0.4348', ''],
        ['fog', '0.6747', '0.7605', '0.8438', '0.8726', '0.9450', '0.8193', '1.0000'],
        ['snow', '0.7173', '0.8839', '0.8647', '0.9187', '0.9495', '0.8668', '1.0000']]


def test_dashes_of_a_gap():
    results = without(results_of({name: ALEXNET[name] for name in ('fog', 'snow')},
                                 benchmark=ImageNetC(('fog', 'snow'))), 'fog(severity=3)')
    assert get_rows(results.sheets[0])[2] == ['fog', '0.6747', '0.7605', '-', '0.8726', '0.9450', '-', '-']
    assert len(results.sheets) == 1  # no mean accuracy of nine


def test_summary_table_has_values_and_intervals():
    summary = ALEX.sheets[1]
    assert [row[0].text for row in summary.rows] == ['mCE', 'relative mCE', 'mean accuracy', *(
        f'at severity {severity}' for severity in range(1, 6))]
    assert [row[1].fraction for row in summary.rows] == [
        '1.0000', '1.0000', '0.2110', '0.3709', '0.2660', '0.1947', '0.1349', '0.0885']
    assert all(row[1].low < row[1].value < row[1].high for row in summary.rows) and ALEX.gaps == []


def test_set_without_alexnets_errors_has_a_mean_accuracy():
    benchmark = ImageNetC(('caustic_refraction',))
    results = results_of({'caustic_refraction': [.1, .2, .3, .4, .5]}, .1, benchmark, 100)
    table, summary = results.sheets
    assert table.columns == ('top1_error', '1', '2', '3', '4', '5', 'mean')  # no column of dashes
    assert get_rows(summary)[1:] == [['mean accuracy of the 5 above', '0.7000']] and results.gaps == []
    cell = summary.rows[0][1]
    ends = list(zip(*(compute_wilson_interval(value, 100) for value in (.1, .2, .3, .4, .5)), strict=True))
    assert (cell.low, cell.high) == pytest.approx((1 - sum(ends[1]) / 5, 1 - sum(ends[0]) / 5))
    assert benchmark.required() == tuple((condition, 'top1_error') for condition in benchmark.conditions())


def test_hold_out_corruption_that_was_not_measured_is_a_gap():
    results = results_of({'fog': ALEXNET['fog']}, benchmark=ImageNetC(('speckle_noise',)))
    assert [(gap.what, gap.command.partition('--corruptions ')[2]) for gap in results.gaps] == [
        ('5 conditions (speckle_noise) not measured', 'speckle_noise --severities 1 2 3 4 5')]


def test_alexnets_errors_are_for_imagenet_alone():
    other = results_of(ALEXNET, dataset="folder(root='cifar/test')")
    table, summary = other.sheets
    assert table.columns == ('top1_error', '1', '2', '3', '4', '5', 'mean')
    assert get_rows(summary)[1] == ['mean accuracy', '0.2110'] and len(summary.rows) == 6
    assert "No CE and mCE: AlexNet's errors are those on ImageNet." in summary.caption
    assert set(values_of(other)) == {'mean_accuracy', 'clean_accuracy', *(
        f'mean_accuracy(severity={severity})' for severity in range(1, 6))}
    assert values_of(other)['clean_accuracy'] == 1 - ALEXNET_CLEAN
    assert without(other, 'fog(severity=3)').gaps[0].what == (
        'no mean accuracy of all 75: 1 condition (fog) not measured')
    assert imagenet_c.has_alexnet('imagenet_c(images=1000)') and not imagenet_c.has_alexnet('imagenet_a(images=9)')


def test_models_are_compared_by_mean_errors_and_mce():
    half = results_of({name: [error / 2 for error in row] for name, row in ALEXNET.items()}, .3, model='half')
    sheet = ImageNetC().compare_models([ALEX, half])
    rows = {row[0].text: [cell.value for cell in row[1:]] for row in sheet.rows}
    assert sheet.columns == ('corruption', 'm', 'half') and len(rows) == 16 + 4
    assert rows['fog'] == pytest.approx([NORMALIZERS['fog'], NORMALIZERS['fog'] / 2], abs=1e-6)
    assert rows['mCE'] == pytest.approx([1, .5]) and rows['clean'] == [ALEXNET_CLEAN, .3]
    best = {row[0].text: [cell.is_best for cell in row[1:]] for row in sheet.rows}
    assert best['mCE'] == best['fog'] == best['mean accuracy'] == [False, True]


def test_conditions_are_distinct_and_clean_comes_first():
    conditions = ImageNetC().conditions()
    assert len(set(map(str, conditions))) == len(conditions) == 76 and conditions[0] == CLEAN
    assert ImageNetC().required() == tuple((condition, 'top1_error') for condition in conditions)
    assert ImageNetC(('fog',), (3,)).required() == ImageNetC().required()
