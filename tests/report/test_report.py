"""The page says what the records say: AlexNet's published table, half its errors, and rates worked by hand."""

import csv
import io
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from pit_downstream.benchmarks.base import Benchmark
from pit_downstream.benchmarks.imagenet_c import ALEXNET, ALEXNET_CLEAN, CORRUPTIONS
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.intervals import (
    Estimate,
    compute_mcnemar_p,
    compute_paired_interval,
    compute_wilson_interval,
)
from pit_downstream.results.labels import label_dataset
from pit_downstream.results.layout import Layout
from pit_downstream.results.records import Record
from pit_downstream.results.tables import Cell, Sheet, render_latex, render_markdown
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Spec
from pit_downstream.report import exports, page, sections
from pit_downstream.report.parts import Figure
from tests.report import stores
from tests.report.html_tables import Page
from tests.report.stores import ALEX, DATA, HALF


def gaps_of(report):
    return {gap.what: gap.command for gap in report.gaps}


def test_every_error_is_in_the_page(told):
    rows = told.rows('imagenet_c_top1_error')
    for name, errors in ALEXNET.items():
        for label, scale in (('alex', 1), ('half', .5)):
            row = rows[label, name.replace('_', ' ')]
            for severity, error in enumerate(errors, 1):
                cell, (low, high) = row[f'severity {severity}'], compute_wilson_interval(scale * error, 1000)
                assert cell.value == scale * error and cell.text == f'{100 * scale * error:.1f}'
                assert cell.interval == f'{100 * low:.1f} to {100 * high:.1f}'
            assert row['mean'].value == pytest.approx(scale * sum(errors) / 5)


def test_alexnets_mce_is_100(told):
    """And that of half its errors 50; the relative one subtracts half the clean error, too."""
    ce = told.rows('ce')
    assert all((ce[name.replace('_', ' '),]['alex'].text, ce[name.replace('_', ' '),]['half'].text) == ('100.0', '50.0')
               for name in CORRUPTIONS)
    assert ce['mCE of the fifteen',]['alex'].value == 1
    glance = told.rows('classifiers')
    row = glance['half', 'imagenet_c, 1000 images']
    assert row['mCE'].value == pytest.approx(.5) and row['mCE'].text == '50.0'
    mean = sum(map(sum, ALEXNET.values())) / 75 / 2
    assert row['mean accuracy'].value == pytest.approx(1 - mean)
    assert row['relative mCE'].value == pytest.approx(.5)


def test_heat_maps_hold_their_numbers(told):
    """The letters of the figure itself, not of a table beside it."""
    figure = told.figures['imagenet_c_top1_error_alex']
    assert {f'{100 * error:.1f}' for errors in ALEXNET.values() for error in errors} <= set(figure)
    assert 'gaussian noise' in figure and 'alex, clean 43.5' in figure


def test_robust_accuracies_and_the_worst_case(told):
    """An image counts in the worst case where it stood both attacks: four and four of ten, then none and two."""
    rows = told.rows('adversarial')
    assert rows['alex', 'clean']['accuracy'].value == .8
    assert rows['alex', 'fgsm', 'Linf']['accuracy'].value == pytest.approx(.2)  # the later of two rows, 8/255
    attacks = [(row[0].text, row[1].text, row[3].text, row[4].text) for row in told.tables['adversarial'][1:]]
    assert ('alex', 'fgsm', '4/255', '50.0') in attacks and ('half', 'pgd(steps=10)', '8/255', '20.0') in attacks
    assert [row for row in attacks if row[1] == 'worst case'] == [
        ('alex', 'worst case', '4/255', '40.0'), ('alex', 'worst case', '8/255', '0.0'),
        ('half', 'worst case', '4/255', '40.0'), ('half', 'worst case', '8/255', '20.0')]
    glance = told.rows('classifiers')['half', 'imagenet_c, 10 of 1000 images', 'the worst case, Linf 4/255']
    low, high = compute_wilson_interval(.4, 10)
    assert (glance['robust accuracy'].text, glance['robust accuracy'].interval) == (
        '40.0', f'{100 * low:.1f} to {100 * high:.1f}')


def test_models_are_paired_by_image(told, numbers):
    """Under FGSM at 4/255 half has one image right that alex has wrong, and none the other way round; see stores.RIGHT:
    1111100000 and 1111011000, so two gained and one lost."""
    rows = told.rows('difference_adversarial_1')
    row = rows['fgsm, Linf 4/255', 'top1 accuracy', 'by image, 10']
    low, high = compute_paired_interval(2, 1, 10)
    assert row['difference'].text == '+10.0' and row['difference'].value == pytest.approx(.1)
    assert row['difference'].interval == f'{100 * low:+.1f} to {100 * high:+.1f}'.replace('-', '−')
    assert row['p'].value == compute_mcnemar_p(2, 1) == 1
    assert rows['clean', 'top1 accuracy', 'no']['difference'].text == '0.0'  # no outcomes of clean images are stored
    point = next(point for point in numbers['differences']['figures']['difference_adversarial_1']['points']
                 if point['condition'] == 'fgsm, Linf 4/255')
    assert (point['value'], point['low'], point['high'], point['paired']) == (pytest.approx(.1), low, high, True)
    fifteen = told.rows('difference_imagenet_c_1')['mean of 75 conditions', 'top1 accuracy', 'no']['difference']
    assert fifteen.value == pytest.approx(sum(map(sum, ALEXNET.values())) / 150)


def test_transfer_is_a_matrix(numbers):
    points = numbers['transfer']['figures']['transfer_1']['points']
    assert {(one['computed on'], one['classified by']): one['value'] for one in points} == {
        ('alex', 'alex'): 0, ('half', 'half'): pytest.approx(.2), ('alex', 'half'): .6, ('half', 'alex'): .6}
    assert numbers['transfer']['gaps'] == []


def test_shifts_have_their_clean_counterparts(told):
    row = told.rows('shifts')['half', 'imagenet_v2_matched_frequency']
    assert (row['error'].text, row['clean error'].text, row['gap'].text) == ('45.0', '30.0', '+15.0')
    error, clean = compute_wilson_interval(.45, 200), compute_wilson_interval(.3, 500)
    low, high = error[0] - clean[1], error[1] - clean[0]
    assert row['gap'].interval == f'{100 * low:+.1f} to {100 * high:+.1f}'


def test_alexnet_belongs_to_imagenet_alone(tmp_path):
    """The same numbers on other images: no CE, no mCE, unless another model is the reference. n is beside them."""
    data = "folder(files='d1', images=1, root='cifar/val')"
    records = [Record(model, data, record.condition, record.metric, record.value, 1, 0)
               for model in (ALEX, HALF) for record in stores.corrupted(model, 1 if model == ALEX else .5)]
    store = stores.write_store(tmp_path, records)
    told = Page(page.render_page(sections.make_report([store])))
    assert 'ce' not in told.tables and 'AlexNet' not in told.tables['imagenet_c_top1_error'][0]
    row = told.rows('classifiers')['half', 'cifar/val, 1 image']
    assert not {'mCE', 'relative mCE'} & row.keys() and row['n'].text == '1'
    assert row['mean accuracy'].value is not None and told.rows('imagenet_c_top1_error')['half', 'fog']['n'].value == 1
    against = Page(page.render_page(sections.make_report([store], reference='alex'))).rows('ce')
    assert against['mCE of the fifteen',]['half'].value == pytest.approx(.5)


def test_shifted_datasets_have_no_clean_accuracy(tmp_path):
    names = ('imagenet', 'imagenet_a', 'imagenet_v2_top_images', 'objectnet', 'in9_mixed_same', 'shift_fog',
             'imagenet_sketch', 'imagenet_stylized')
    store = stores.write_store(tmp_path, [
        Record(HALF, f'{name}(images=9)', 'clean', stores.ERROR, .5, 9, 0) for name in names])
    told = Page(page.render_page(sections.make_report([store])))
    assert [key[1] for key in told.rows('classifiers')] == ['imagenet, 9 images']


def test_custom_shift_is_shown_beside_its_clean_images(tmp_path):
    """By the digest of their files; neither another folder nor ImageNet takes their place, nor they ImageNet's."""
    def record(dataset, error):
        return Record(HALF, dataset, 'clean', stores.ERROR, error, 40, 0)
    stores.write_store(tmp_path, [
        record("folder(files='aaaa1111', images=80, root='mine/val', size=96)", .9),  # seen otherwise
        record("folder(files='aaaa1111', images=80, root='mine/val')", .1),
        record("folder(files='bbbb2222', images=90, root='else/val')", .2),
        record("shift_fog(clean='aaaa1111', files='cccc3333', images=40)", .75),
        record("shift_rain(clean='bbbb2222', files='dddd4444', images=40)", .25),
        record("shift_snow(clean='eeee5555', files='ffff6666', images=40)", .5),
        record("shift_part(classes='0123abcd', clean='aaaa1111', files='9999aaaa', images=40)", .5),
        Record(HALF, "folder(files='aaaa1111', images=80, root='mine/val')", 'clean', 'classes_0123abcd_top1_error',
               .4, 20, 0),
        *stores.shifted(HALF)])
    report = sections.make_report([tmp_path])
    rows = Page(page.render_page(report, made='')).rows('shifts')
    shown = {name: [row[column].text for column in ('error', 'clean error', 'gap')]
             for (_, name), row in rows.items() if name != 'clean'}
    assert shown == {
        'imagenet': ['30.0', '', ''], 'imagenet_v2_matched_frequency': ['45.0', '30.0', '+15.0'],
        'shift_fog': ['75.0', '10.0', '+65.0'], 'shift_rain': ['25.0', '20.0', '+5.0'],
        'shift_part': ['50.0', '40.0', '+10.0'], 'shift_snow': ['50.0', '–', '–']}
    gap = next(what for what in gaps_of(report) if 'no gap of shift_snow: error of clean not measured' in what)
    assert gaps_of(report)[gap].startswith('pit-downstream eval-shifts') and '--data DIR' in gaps_of(report)[gap]


def test_a_data_set_is_called_by_its_name_and_place():
    assert label_dataset("folder(images=80, root='mine/val')") == 'mine/val, 80 images'
    assert label_dataset("shift_fog(images=80, limit=9, root='mine/val')") == 'shift_fog mine/val, 9 of 80 images'


def test_detectors_and_their_missing_parts(told, report):
    """A fog of .35 .3 .25 .2 .15 has the mean .25; the other fourteen are missing: nothing is averaged over them."""
    assert told.rows('coco_c_AP')['retina', 'fog']['mean'].value == pytest.approx(.25)
    head, row = ([cell.text for cell in row] for row in told.tables['detectors'])
    assert head == ['model', 'data', 'n', 'P(AP)'] and row == ['retina', 'coco val, 8 images', '8', '40.0']
    gaps = gaps_of(report)
    what = next(what for what in gaps if what.startswith('retina on coco val, 8 images: no mPC: 70 conditions'))
    assert gaps[what].startswith(
        'pit-downstream eval-coco-c --model configs/retina.py --weights work_dirs/retina --bundled --output-dir ')
    assert gaps[what].endswith('contrast elastic_transform pixelate jpeg_compression --severities 1 2 3 4 5')
    assert ' fog ' not in gaps[what]


def test_collapse_training_speed_and_strengths(told, numbers):
    assert {(point['block'], point['other']): point['value'] for point in
            numbers['attention']['figures']['similarity_alex_softmax']['points']} == {
        ('1', '2'): pytest.approx(.6), ('1', '3'): pytest.approx(.6), ('2', '3'): pytest.approx(.7)}
    assert told.rows('attention')['alex', 'clean', 'softmax', 'all']['of all'].text == '33.3'
    run = told.rows('training')['retina', 'coco/bbox_mAP']
    names = ('iterations', 'first loss', 'best', 'seconds per iteration')
    assert [run[name].value for name in names] == [6, 10, .06, .5]
    (fast,) = told.rows('speed').items()
    assert fast[0] == ('fast', 'eval', 'small', 'time', 'other', 'x86_64', '2', 'abc1234')
    assert [fast[1][name].value for name in ('ours', "the peer's", 'ratio')] == [.002, .005, 2.5]
    points = numbers['occlusion']['figures']['strength_1']['points']
    assert [(point['share'], point['value']) for point in points] == [
        (0, pytest.approx(1 - ALEXNET_CLEAN / 2)), (.25, pytest.approx(.45)), (.5, pytest.approx(.2))]


def test_every_figure_shows_something(report, told):
    names = [figure.name for figure in report.list_parts(Figure)]
    assert len(names) == len(set(names)) > 15 and len(told.ids) == len(set(told.ids))
    for figure in report.list_parts(Figure):
        assert figure.caption and figure.points and told.figures[figure.name], figure.name
        assert told.shapes[figure.name] > 5, figure.name


def test_page_makes_no_requests(html, told):
    assert [link for link in told.links if not link.startswith(('#', 'data:'))] == []
    assert '@import' not in html and 'url(http' not in html
    assert "font-family: 'DejaVu" not in html and 'font-weight: 700; font-size: 9.5px; text-anchor' in html
    assert told.links.count('data:,') == 1 and sum(link.startswith('data:image/png') for link in told.links) == 1


def test_every_section_has_its_place(report, told):
    shown = [section.name for section in report.sections if section.parts]
    assert shown == [*sections.BEFORE, *sections.AFTER] and set(shown) <= set(told.ids)


def test_a_gap_is_a_dash_with_its_command(tmp_path):
    """Without fog at severity 3: no mean, no CE of fog, no mCE, and the run that would fill it."""
    run = ('tools/eval_imagenet_c.py', '--model', 'alex', '--data', 'my data', '--limit=9', '--corruptions', 'snow')
    store = stores.write_store(tmp_path, stores.corrupted(ALEX, exclude=['fog(severity=3)']), *run)
    found = sections.make_report([store])
    told = Page(page.render_page(found))
    assert told.rows('imagenet_c_top1_error')['alex', 'fog']['mean'].text == told.rows('ce')['fog',]['alex'].text == '–'
    assert told.rows('ce')['mCE of the fifteen',]['alex'].text == '–'
    row = told.rows('classifiers')['alex', 'imagenet_c, 1000 images']
    assert not {'mCE', 'mean accuracy', 'relative mCE'} & row.keys()
    assert gaps_of(found)['alex on imagenet_c, 1000 images: no mCE: 1 condition (fog) not measured'] == (
        "pit-downstream eval-imagenet-c --model alex --data 'my data' --limit 9 --corruptions fog --severities 3")
    assert gaps_of(found)['alex: Attacks not measured'] == (
        "pit-downstream eval-adversarial --model alex --data 'my data' --limit 9")
    assert {'no training log', 'no speed results', 'no detections'} <= set(gaps_of(found))


def test_any_model_may_be_the_reference(kept):
    found = sections.make_report([kept / 'imagenet_c'], reference='half')
    told = Page(page.render_page(found))
    assert told.rows('ce')['fog',]['alex'].text == '200.0' and told.rows('ce')['fog',]['half'].text == '100.0'
    assert told.rows('ce')['mCE of the fifteen',]['alex'].value == pytest.approx(2)
    clean = told.rows('difference_imagenet_c_1')['clean', 'top1 accuracy', 'no']
    assert clean['difference'].value == pytest.approx(-ALEXNET_CLEAN / 2)
    with pytest.raises(InputError, match="no single model named 'hal' in these records. Did you mean 'half'"):
        sections.make_report([kept / 'imagenet_c'], reference='hal')


def test_csv_has_every_number_of_the_page(report, told):
    rows = list(csv.DictReader(io.StringIO(exports.format_csv(report))))
    assert tuple(rows[0]) == exports.COLUMNS
    shown = sum(cell.value is not None for table in told.tables.values() for row in table for cell in row)
    assert sum(row['kind'] == 'table' for row in rows) == shown
    assert sum(row['kind'] == 'figure' for row in rows) == sum(len(one.points) for one in report.list_parts(Figure))
    fog = next(row for row in rows if (row['part'], row['row']) == ('imagenet_c_top1_error', 'half | fog')
               and row['column'] == 'severity 3')
    assert float(fog['value']) == ALEXNET['fog'][2] / 2 and float(fog['low']) == compute_wilson_interval(
        ALEXNET['fog'][2] / 2, 1000)[0]


def test_tables_for_papers(report):
    sheet = next(sheet for sheet in report.list_parts(Sheet) if sheet.name == 'ce')
    low, high = (100 * sum(ends) / sum(ALEXNET['fog'])
                 for ends in zip(*(compute_wilson_interval(error, 1000) for error in ALEXNET['fog']), strict=True))
    markdown = render_markdown(sheet).splitlines()
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in markdown if line.startswith('|')]
    assert cells[0] == ['corruption', 'alex', 'half'] and [cell[-1] for cell in cells[1]] == ['-', ':', ':']
    fog = next(row for row in cells if row[0] == 'fog')
    assert fog[1] == f'100.0 ({low:.1f} to {high:.1f})' and fog[2].startswith('50.0 (')
    latex = render_latex(sheet)
    assert r'\begin{tabular}{lrr}' in latex and r'\toprule' in latex and r'\bottomrule' in latex
    row = ' '.join(next(line for line in latex.splitlines() if line.strip().startswith('fog')).split())
    assert row.startswith(f'fog & 100.0 ({low:.1f} to {high:.1f}) & 50.0 (') and 'CE in percent' in latex


def test_latex_is_escaped():
    sheet = Sheet('a_b', '50 % of A & B – −1', ('x_1', 'p'), ((Cell('a_b'), Cell('< 0.1', .05)),))
    latex = render_latex(sheet)
    assert r'\caption{50 \% of A \& B -- $-$1}' in latex and r'a\_b   & \ensuremath{<} 0.1 \\' in latex
    assert r'\label{tab:a-b}' in latex and r'x\_1   &     p \\' in latex


def test_labels_distinguish_models(tmp_path):
    """Two files of weights of one name, and two seeds of one."""
    twin = HALF.replace('0123abcd', '9876abcd')
    records = [*stores.corrupted(HALF, .5), *stores.corrupted(twin, .6)]
    found = sections.make_report([stores.write_store(tmp_path, records)])
    assert found.models == ('half (half@0123)', 'half (half@9876)')


def test_without_outcomes_the_strongest_attack_is_quoted(tmp_path):
    """Records alone do not say which images an attack fooled, so no worst case can be told from two attacks."""
    store = stores.write_store(tmp_path, stores.attacked(HALF))
    (tmp_path / 'outcomes.jsonl').unlink()
    told = Page(page.render_page(sections.make_report([store])))
    assert told.rows('classifiers')['half', 'imagenet_c, 10 of 1000 images', 'the strongest attack, Linf 4/255'][
        'robust accuracy'].text == '40.0'
    assert not [row for row in told.rows('adversarial') if 'worst case' in row]


def test_no_column_is_empty_and_no_heat_map_column_either(report):
    for sheet in report.list_parts(Sheet):
        for column, title in enumerate(sheet.columns):
            assert any(row[column].text not in ('', '–') for row in sheet.rows), (sheet.name, title)


def test_attacks_of_a_model_share_one_figure_per_norm(tmp_path):
    """Two attacks and their worst case in Linf, one attack in L2, and none over steps."""
    data = "folder(images=10, root='val')"
    records = [Record(HALF, data, 'clean', stores.ERROR, .2, 10, 0)]
    for name, norm, levels in (('fgsm', 'Linf', (4, 8)), ('pgd', 'Linf', (4, 8)), ('pgd', 'L2', (1, 2))):
        for level in levels:
            record = Record(HALF, data, f"clean + {name}(epsilon={level}/255, norm='{norm}')", stores.ERROR, .5, 10, 0)
            stores.add_outcomes(tmp_path, record, stores.ERROR, np.arange(10) % 2 == (name == 'pgd'))
            records.append(record)
    report = sections.make_report([stores.write_store(tmp_path, records)])
    (section,) = (section for section in report.sections if section.name == 'adversarial')
    first, second = (part for part in section.parts if isinstance(part, Figure))
    lines = {}
    for point in first.points:
        lines.setdefault(point['attack'], []).append((round(255 * point['epsilon']), point['value']))
    assert lines == {'fgsm': [(0, .8), (4, .5), (8, .5)], 'pgd': [(0, .8), (4, .5), (8, .5)],
                     'worst case': [(0, .8), (4, 0), (8, 0)]}
    assert {point['attack'] for point in second.points} == {'pgd'} and ' (L2) ' in second.caption


def test_means_over_severities_are_paired_by_image(tmp_path):
    """Three images under two severities: means 0 .5 1 and 0 0 .5, so differences of 0 .5 .5 in accuracy."""
    errors = {ALEX: ((0, 0, 1), (0, 1, 1)), HALF: ((0, 0, 0), (0, 0, 1))}
    records = []
    for model, rows in errors.items():
        for severity, row in enumerate(rows, 1):
            record = Record(model, DATA, f'fog(severity={severity})', stores.ERROR, sum(row) / 3, 3, 0)
            stores.add_outcomes(tmp_path, record, stores.ERROR, np.array(row, bool))
            records.append(record)
    told = Page(page.render_page(sections.make_report([stores.write_store(tmp_path, records)])))
    row = told.rows('difference_imagenet_c_1')['fog', 'top1 accuracy', 'by image, 3']
    half = 1.959963984540054 * math.sqrt(1 / 12 / 3)  # variance of 0 .5 .5 with n - 1: 1/12
    assert row['difference'].value == pytest.approx(1 / 3)
    low, high = 100 * (1 / 3 - half), 100 * (1 / 3 + half)
    assert row['difference'].interval == f'{low:+.1f} to {high:+.1f}'.replace('-', '−')


def test_reattention_and_random_weights(tmp_path):
    """Only a model with Re-attention has figures of it, and random weights are in the label."""
    pit, deep = "pit_s(weights='random@0123abcd0123abcd')", "deepvit_s(weights='d.pth@0123abcd0123abce')"
    both = [*stores.traced(pit), *stores.traced(deep)]
    both += [replace(record, metric=record.metric.replace('softmax', 'reattention')) for record in stores.traced(deep)
             if record.metric == 'softmax_similarity']
    report = sections.make_report([stores.write_store(tmp_path, both)])
    figures = {figure.name: figure for figure in report.list_parts(Figure)}
    assert 'similarity_deepvit_s_reattention' in figures and 'similarity_pit_s__random_weights_softmax' in figures
    assert not any('reattention' in name and 'pit_s' in name for name in figures)
    models = [{point['model'] for point in figure.points} for figure in figures.values()
              if 'Re-attention' in figure.caption]
    assert models == [{'deepvit_s'}] * 2 and report.models == ('pit_s, random weights', 'deepvit_s')


def test_runs_are_in_a_table(told, kept):
    row = told.rows('runs')['2026-01-02 03:04', 'imagenet_c', 'half', 'imagenet_c, 1000 images', 'cpu', 'abc1234',
                            'torch 2.14.1', 'pit-downstream eval-imagenet-c --model half --weights weights/half.pth '
                            f'--data data/val --output-dir {kept / "imagenet_c"}']
    assert row['benchmark'].text == 'imagenet_c'


@pytest.fixture
def custom(monkeypatch):
    """Register a benchmark of 15 lines."""
    monkeypatch.setattr(BENCHMARKS, '_entries', BENCHMARKS._entries.copy())

    @BENCHMARKS.register('haze')
    @dataclass(frozen=True)
    class Haze(Benchmark):
        name, title, about = 'haze', 'Haze', 'Errors in haze.'
        layout = Layout(rows='corruption', columns='severity')
        levels: tuple[int, ...] = (1, 2)

        def conditions(self):
            return (CLEAN, *(Condition(Spec.of(name, severity=level)) for name in ('fog', 'frost')
                             for level in self.levels))

        def summarize(self, results):
            results.table.require(self.required())
            return {'haze': Estimate(results.table['fog(severity=2)', 'top1_error'])}
    return Haze


def test_custom_benchmark_has_a_section(tmp_path, custom):
    """Its layout gives heat maps, means, tables, differences and gaps, and its summary is in the overview."""
    values = {'clean': .1, 'fog(severity=1)': .2, 'fog(severity=2)': .3, 'frost(severity=1)': .4}
    records = [Record(model, DATA, condition, stores.ERROR, scale * value, 1000, 0, benchmark='haze')
               for model, scale in ((ALEX, 1), (HALF, .5)) for condition, value in values.items()]
    records.append(Record(HALF, DATA, 'frost(severity=2)', stores.ERROR, .5, 1000, 0, benchmark='haze'))
    argv = ('pit-downstream evaluate', '--benchmark', 'haze', '--import', 'mine', '--model', 'alex')
    store = stores.write_store(tmp_path, records, *argv, model=ALEX, benchmark='haze(levels=(1, 2))')
    report = sections.make_report([store])
    told = Page(page.render_page(report))
    names = [section.name for section in report.sections if section.parts]
    assert names == ['headline', 'differences', 'haze', 'provenance']  # not in ImageNet-C
    assert '30.0' in told.figures['haze_top1_error_alex'] and 'mean_haze_top1_error' in told.figures
    row = told.rows('haze_top1_error')['half', 'frost']
    assert row['severity 1'].value == .2 and row['mean'].value == pytest.approx(.35)
    assert told.rows('haze_top1_error')['alex', 'frost']['mean'].text == '–'
    assert told.rows('difference_haze_1')['fog', 'top1 accuracy', 'no']['difference'].value == pytest.approx(.125)
    assert told.rows('classifiers')['half', 'imagenet_c, 1000 images']['haze'].text == '15.0'
    gaps = {what: command for what, command in gaps_of(report).items() if 'frost' in what}
    assert gaps == {'alex on imagenet_c, 1000 images: 1 condition (frost) not measured':
                    'pit-downstream evaluate --benchmark haze --import mine --model alex'}
    assert r'\textbf' in render_latex(next(sheet for sheet in report.list_parts(Sheet) if sheet.name == 'haze_models'))


def test_a_custom_benchmark_without_columns_has_bars(tmp_path, monkeypatch):
    monkeypatch.setattr(BENCHMARKS, '_entries', BENCHMARKS._entries.copy())

    @BENCHMARKS.register('blurs')
    @dataclass(frozen=True)
    class Blurs(Benchmark):
        name, title, layout = 'blurs', 'Blurs', Layout(rows='corruption')

        def conditions(self):
            return (CLEAN, Condition.parse('glass_blur(severity=3)'))
    records = [Record(ALEX, DATA, condition, stores.ERROR, error, 100, 0, benchmark='blurs')
               for condition, error in (('clean', .25), ('glass_blur(severity=3)', .5))]
    report = sections.make_report([stores.write_store(tmp_path, records)])
    (figure,) = report.list_parts(Figure)
    assert [(point['corruption'], point['top1_error']) for point in figure.points] == [
        ('clean', .25), ('glass_blur', .5)]
    low, high = compute_wilson_interval(.5, 100)
    row = Page(page.render_page(report)).rows('blurs_top1_error')['alex', 'glass_blur']
    assert row['top1_error'].interval == f'{100 * low:.1f} to {100 * high:.1f}'


def test_other_metrics_are_in_a_table(tmp_path):
    """Top-5 error in percent and nll as it is; they have no other table."""
    records = [Record(ALEX, DATA, 'fog(severity=1)', metric, value, 1000, 0)
               for metric, value in ((stores.ERROR, .5), ('top5_error', .25), ('nll', 1.5))]
    told = Page(page.render_page(sections.make_report([stores.write_store(tmp_path, records)])))
    row = told.rows('imagenet_c_metrics')['alex', 'fog(severity=1)']
    assert (row['top5_error'].text, row['nll'].text) == ('25.0', '1.5') and stores.ERROR not in row
