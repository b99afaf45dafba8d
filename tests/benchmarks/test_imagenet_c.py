"""AlexNet's own table gives 1 exactly; the normalisers are the published ones; a small table worked by hand."""

import shlex

import pytest

from pit_downstream.benchmarks import imagenet_c
from pit_downstream.benchmarks.base import compute_wilson_interval
from pit_downstream.benchmarks.imagenet_c import ALEXNET, ALEXNET_CLEAN, CORRUPTIONS, ERROR, make_condition
from pit_downstream.results.condition import CLEAN
from pit_downstream.results.records import MissingMeasurement, Record, Table
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.corruptions.base import VARIANTS

# What AugMix, easyrobust, FAN and RVT divide by, six digits
NORMALISERS = {
    'gaussian_noise': .886428, 'shot_noise': .894468, 'impulse_noise': .922640, 'defocus_blur': .819880,
    'glass_blur': .826268, 'motion_blur': .785948, 'zoom_blur': .798360, 'snow': .866816, 'frost': .826572,
    'fog': .819324, 'brightness': .564592, 'contrast': .853204, 'elastic_transform': .646056, 'pixelate': .717840,
    'jpeg_compression': .606500}


def table_of(errors, clean, count=50000, **variant):
    """errors: by corruption, five each."""
    def record(one, value):
        return Record('m', 'imagenet', str(one), ERROR, value, count, 0)
    return Table('m', 'imagenet', [record(CLEAN, clean)] + [
        record(make_condition(name, severity, **variant), value) for name, values in errors.items()
        for severity, value in enumerate(values, 1)])


def test_alexnet_is_one():
    summary = imagenet_c.summarize(table_of(ALEXNET, ALEXNET_CLEAN))
    assert summary['mCE'] == 1 and summary['relative_mCE'] == 1
    assert {summary[f'CE({name})'] for name in CORRUPTIONS} == {1.}
    assert {summary[f'relative_CE({name})'] for name in CORRUPTIONS} == {1.}
    assert summary['clean_accuracy'] == 1 - .4348
    assert summary['mean_accuracy'] == pytest.approx(1 - sum(NORMALISERS.values()) / 15, abs=1e-6)


@pytest.mark.parametrize('name', CORRUPTIONS)
def test_severities_reproduce_the_published_normaliser(name):
    assert sum(ALEXNET[name]) / 5 == pytest.approx(NORMALISERS[name], abs=1e-6)
    summary = imagenet_c.summarize(table_of(dict.fromkeys(CORRUPTIONS, [.5] * 5), .2))
    assert summary[f'CE({name})'] == pytest.approx(.5 / NORMALISERS[name], rel=2e-6)


def test_a_table_worked_by_hand():
    """Clean error 0.2348; brightness at .1 .2 .3 .4 .5, all others at AlexNet's errors less 0.2."""
    errors = {name: [value - .2 for value in values] for name, values in ALEXNET.items()}
    errors['brightness'] = [.1, .2, .3, .4, .5]
    summary = imagenet_c.summarize(table_of(errors, .2348))
    assert summary['CE(brightness)'] == pytest.approx(1.5 / 2.82296)
    assert summary['CE(fog)'] == pytest.approx((4.09662 - 1) / 4.09662)
    # both clean errors drop by 0.2 as well: the others stay at 1
    assert summary['relative_CE(fog)'] == pytest.approx(1)
    assert summary['relative_CE(brightness)'] == pytest.approx((1.5 - 5 * .2348) / (2.82296 - 5 * .4348))
    assert summary['mCE'] == pytest.approx(sum(
        1 - .2 / NORMALISERS[name] for name in CORRUPTIONS if name != 'brightness') / 15 + 1.5 / 2.82296 / 15)
    assert summary['relative_mCE'] == pytest.approx((14 + .326 / .64896) / 15)
    others = sum(ALEXNET[name][0] - .2 for name in CORRUPTIONS if name != 'brightness')
    assert summary['mean_accuracy(severity=1)'] == pytest.approx(1 - (others + .1) / 15)


def test_hold_out_corruptions_have_a_ce_and_no_part_in_mce():
    table = table_of({**ALEXNET, 'spatter': [.7175] * 5}, ALEXNET_CLEAN)
    assert imagenet_c.compute_ce(table, 'spatter') == pytest.approx(1)
    assert imagenet_c.summarize(table)['mCE'] == 1
    with pytest.raises(InputError, match="no error of AlexNet is published for 'mine'"):
        imagenet_c.compute_ce(table_of({'mine': [.5] * 5}, .2), 'mine')


def test_published_variants_do_not_mix():
    table = table_of(ALEXNET, ALEXNET_CLEAN, jpeg=85)
    assert imagenet_c.summarize(table, jpeg=85)['mCE'] == 1
    with pytest.raises(MissingMeasurement):
        imagenet_c.summarize(table)


def test_the_authors_protocol_is_named_where_it_differs():
    assert {f'{name}:hendrycks' for name in imagenet_c.HENDRYCKS} == set(VARIANTS)
    said = [one for one in imagenet_c.list_conditions(variant='hendrycks') if 'hendrycks' in str(one)]
    assert len(said) == 15 and str(said[0]) == "frost(severity=1, variant='hendrycks')"
    assert imagenet_c.summarize(table_of(ALEXNET, ALEXNET_CLEAN, variant='hendrycks'), variant='hendrycks')['mCE'] == 1


def test_gaps_are_named_and_never_averaged():
    errors = dict(ALEXNET)
    del errors['fog']
    errors['snow'] = errors['snow'][:4]
    with pytest.raises(MissingMeasurement, match=r'of m on imagenet under snow\(severity=5\), fog\(severity=1\)'
                       ) as caught:
        imagenet_c.summarize(table_of(errors, .4))
    assert len(caught.value.keys) == 6
    command = 'pit-downstream eval-imagenet-c --model m'
    assert f'{command} --corruptions snow fog --severities 1 2 3 4 5' in str(caught.value)


def test_only_relative_mce_needs_the_clean_error():
    """A published set may lie where there are no clean images."""
    whole = imagenet_c.summarize(table_of(ALEXNET, ALEXNET_CLEAN))
    rest = Table('m', 'imagenet', table_of(ALEXNET, ALEXNET_CLEAN).records[1:])
    assert imagenet_c.summarize(rest) == {name: value for name, value in whole.items()
                                          if 'relative' not in name and 'clean' not in name}
    assert set(imagenet_c.compute_intervals(rest)) == set(imagenet_c.summarize(rest))
    with pytest.raises(MissingMeasurement, match='no top1_error of m on imagenet under clean'):
        imagenet_c.compute_relative_ce(rest, 'fog')


def test_the_command_keeps_the_arguments_of_the_model():
    model = "pit_ti(amp='bf16', mean=0.5, num_classes=10, std=0.5, weights='x.pth@0123456789abcdef')"
    with pytest.raises(MissingMeasurement) as caught:
        imagenet_c.summarize(Table(model, 'imagenet'))
    command = str(caught.value).partition('to fill the gap: ')[2]
    assert shlex.split(command)[:4] == ['pit-downstream', 'eval-imagenet-c', '--model', 'pit_ti(num_classes=10)']
    assert command.endswith('--severities 1 2 3 4 5')


def test_every_number_of_the_summary_has_an_interval_that_holds_it():
    summary = imagenet_c.summarize(table_of(ALEXNET, ALEXNET_CLEAN))
    intervals = imagenet_c.compute_intervals(table_of(ALEXNET, ALEXNET_CLEAN, 100))
    assert set(intervals) == set(summary) and len(summary) == 4 + 5 + 30
    assert all(intervals[name][0] < value < intervals[name][1] for name, value in summary.items())
    assert all(imagenet_c.compute_ce_interval(table_of(ALEXNET, ALEXNET_CLEAN, 100), name) == intervals[f'CE({name})']
               for name in CORRUPTIONS)
    ends = list(zip(*(compute_wilson_interval(value, 100) for value in ALEXNET['fog']), strict=True))
    assert intervals['CE(fog)'] == pytest.approx([sum(end) / 5 / NORMALISERS['fog'] for end in ends], rel=1e-6)
    clean, below = compute_wilson_interval(ALEXNET_CLEAN, 100), 5 * (NORMALISERS['fog'] - ALEXNET_CLEAN)
    assert intervals['relative_CE(fog)'] == pytest.approx(
        [(sum(ends[0]) - 5 * clean[1]) / below, (sum(ends[1]) - 5 * clean[0]) / below], rel=1e-5)
    first = [compute_wilson_interval(values[0], 100) for values in ALEXNET.values()]
    assert intervals['mean_accuracy(severity=1)'] == pytest.approx(
        [1 - sum(high for _, high in first) / 15, 1 - sum(low for low, _ in first) / 15])


def test_intervals_hold_the_value_and_shrink_with_the_count():
    wide, narrow = (imagenet_c.compute_intervals(table_of(ALEXNET, ALEXNET_CLEAN, count)) for count in (100, 50000))
    for name, value in (('mCE', 1), ('relative_mCE', 1), ('mean_accuracy', 1 - sum(NORMALISERS.values()) / 15)):
        assert wide[name][0] < narrow[name][0] < value < narrow[name][1] < wide[name][1]
    low, high = zip(*(compute_wilson_interval(value, 100) for values in ALEXNET.values() for value in values),
                    strict=True)
    assert wide['mean_accuracy'] == pytest.approx((1 - sum(high) / 75, 1 - sum(low) / 75))
    by_hand = [sum(compute_wilson_interval(value, 100)[end] for value in ALEXNET[name]) / 5 / NORMALISERS[name] / 15
               for end in (0, 1) for name in CORRUPTIONS]
    assert wide['mCE'] == pytest.approx((sum(by_hand[:15]), sum(by_hand[15:])), rel=1e-6)


def test_the_benchmark_is_registered():
    benchmark = BENCHMARKS['imagenet_c']
    assert len(benchmark.conditions) == 76 and benchmark.conditions[0] == CLEAN
    assert len(set(map(str, benchmark.conditions))) == 76
    assert benchmark.summarize(table_of(ALEXNET, ALEXNET_CLEAN))['mCE'] == 1
