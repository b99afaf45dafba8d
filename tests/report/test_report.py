"""The page says what the records say: AlexNet's published table, half its errors, and rates worked by hand."""

import csv
import io

import pytest

from pit_downstream.benchmarks.base import compute_wilson_interval
from pit_downstream.benchmarks.differences import compute_mcnemar_p, compute_paired_interval
from pit_downstream.benchmarks.imagenet_c import ALEXNET, ALEXNET_CLEAN, CORRUPTIONS
from pit_downstream.results.records import Record
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import SECTIONS
from pit_downstream.report import exports, page, sections
from pit_downstream.report.names import dataset_label
from pit_downstream.report.parts import Figure, Sheet
from tests.report import stores
from tests.report.html_tables import Page
from tests.report.stores import ALEX, HALF


def gaps_of(report):
    return {gap.what: gap.command for gap in report.gaps}


def test_every_error_is_in_the_page(told):
    rows = told.rows('errors')
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
    assert row['accuracy, corrupted'].value == pytest.approx(1 - mean)
    assert row['relative mCE'].value == pytest.approx(.5)


def test_heat_maps_hold_their_numbers(told):
    """The letters of the figure itself, not of a table beside it."""
    assert {f'{100 * error:.1f}' for errors in ALEXNET.values() for error in errors} <= set(told.figures['errors_alex'])
    assert 'gaussian noise' in told.figures['errors_alex'] and 'alex, clean 43.5' in told.figures['errors_alex']


def test_robust_accuracies_and_the_worst_case(told):
    """An image counts in the worst case where it stood both attacks: four and four of ten, then none and two."""
    rows = told.rows('attacks')
    assert rows['alex', 'none']['accuracy'].value == .8
    assert rows['alex', 'fgsm', 'Linf']['accuracy'].value == pytest.approx(.2)  # the later of two rows, 8/255
    attacks = [(row[0].text, row[1].text, row[3].text, row[4].text) for row in told.tables['attacks'][1:]]
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
    rows = told.rows('difference_1_1')
    row = rows['fgsm, Linf 4/255', 'by image, 10']
    low, high = compute_paired_interval(2, 1, 10)
    assert row['difference, points'].text == '+10.0' and row['difference, points'].value == pytest.approx(.1)
    assert row['difference, points'].interval == f'{100 * low:+.1f} to {100 * high:+.1f}'.replace('-', '−')
    assert row['p'].value == compute_mcnemar_p(2, 1) == 1
    assert rows['clean', 'no']['difference, points'].text == '0.0'  # no verdicts of clean images are kept
    point = next(point for point in numbers['differences']['figures']['difference_1_1']['points']
                 if point['condition'] == 'fgsm, Linf 4/255')
    assert (point['value'], point['low'], point['high'], point['paired']) == (pytest.approx(.1), low, high, True)
    fifteen = told.rows('difference_2_1')['the 15 corruptions', 'no']['difference, points']
    assert fifteen.value == pytest.approx(sum(map(sum, ALEXNET.values())) / 150)


def test_transfer_is_a_matrix(numbers):
    points = numbers['transfer']['figures']['transfer_1']['points']
    assert {(one['made on'], one['shown to']): one['value'] for one in points} == {
        ('alex', 'alex'): 0, ('half', 'half'): pytest.approx(.2), ('alex', 'half'): .6, ('half', 'alex'): .6}
    assert numbers['transfer']['gaps'] == []


def test_shifts_have_their_clean_counterparts(told):
    row = told.rows('shifts')['half', 'imagenet_v2_matched_frequency']
    assert (row['error'].text, row['matching clean error'].text, row['gap, points'].text) == ('45.0', '30.0', '+15.0')
    error, clean = compute_wilson_interval(.45, 200), compute_wilson_interval(.3, 500)
    low, high = error[0] - clean[1], error[1] - clean[0]
    assert row['gap, points'].interval == f'{100 * low:+.1f} to {100 * high:+.1f}'


def test_alexnet_belongs_to_imagenet_alone(tmp_path):
    """The same numbers on other images: no CE, no mCE, unless another model is the reference. n is beside them."""
    data = "folder(files='d1', images=1, root='cifar/val')"
    records = [Record(model, data, record.condition, record.metric, record.value, 1, 0)
               for model in (ALEX, HALF) for record in stores.corrupted(model, 1 if model == ALEX else .5)]
    store = stores.write_store(tmp_path, records)
    told = Page(page.as_html(sections.make_report([store])))
    assert 'ce' not in told.tables and 'AlexNet' not in told.tables['errors'][0]
    row = told.rows('classifiers')['half', 'cifar/val, 1 image']
    assert (row['mCE'].text, row['relative mCE'].text, row['n'].text) == ('–', '–', '1')
    assert row['accuracy, corrupted'].value is not None and told.rows('errors')['half', 'fog']['n'].value == 1
    against = Page(page.as_html(sections.make_report([store], reference='alex'))).rows('ce')
    assert against['mCE of the fifteen',]['half'].value == pytest.approx(.5)


def test_shifted_datasets_have_no_clean_accuracy(tmp_path):
    names = ('imagenet', 'imagenet_a', 'imagenet_v2_top_images', 'objectnet', 'in9_mixed_same', 'shift_fog',
             'imagenet_sketch', 'imagenet_stylized')
    store = stores.write_store(tmp_path, [
        Record(HALF, f'{name}(images=9)', 'clean', stores.ERROR, .5, 9, 0) for name in names])
    told = Page(page.as_html(sections.make_report([store])))
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
        Record(HALF, "folder(files='aaaa1111', images=80, root='mine/val')", 'clean', 'top1_error_of_0123abcd', .4, 20,
               0),
        *stores.shifted(HALF)])
    report = sections.make_report([tmp_path])
    rows = Page(page.as_html(report, made='')).rows('shifts')
    shown = {name: [row[column].text for column in ('error', 'matching clean error', 'gap, points')]
             for (_, name), row in rows.items() if name != 'clean'}
    assert shown == {
        'imagenet': ['30.0', '–', '–'], 'imagenet_v2_matched_frequency': ['45.0', '30.0', '+15.0'],
        'shift_fog': ['75.0', '10.0', '+65.0'], 'shift_rain': ['25.0', '20.0', '+5.0'],
        'shift_part': ['50.0', '40.0', '+10.0'], 'shift_snow': ['50.0', '–', '–']}
    assert any('with the clean images' in command for command in gaps_of(report).values())


def test_a_data_set_is_called_by_its_name_and_place():
    assert dataset_label("folder(images=80, root='mine/val')") == 'mine/val, 80 images'
    assert dataset_label("shift_fog(images=80, limit=9, root='mine/val')") == 'shift_fog mine/val, 9 of 80 images'


def test_detectors_and_their_missing_parts(told, report):
    """A fog of .35 .3 .25 .2 .15 has the mean .25; the other fourteen are missing: nothing is averaged over them."""
    assert told.rows('mean_AP')['fog',]['retina'].value == pytest.approx(.25)
    assert [cell.text for cell in told.tables['detectors'][1]] == ['retina', 'coco val, 8 images', '8', 'AP',
                                                                   '40.0', '–', '–']
    gaps = gaps_of(report)
    what = next(what for what in gaps if what.startswith('retina on coco val, 8 images: no AP under 70 conditions'))
    assert what.endswith('hence no mPC and rPC')
    assert gaps[what].startswith(
        'pit-downstream eval-coco-c --model configs/retina.py --weights work_dirs/retina --bundled --output-dir ')
    assert gaps[what].endswith('contrast elastic_transform pixelate jpeg_compression --severities 1 2 3 4 5')
    assert ' fog ' not in gaps[what]


def test_collapse_training_speed_and_strengths(told, numbers):
    assert {(point['block'], point['other']): point['value'] for point in
            numbers['collapse']['figures']['similarity_alex_softmax']['points']} == {
        ('1', '2'): pytest.approx(.6), ('1', '3'): pytest.approx(.6), ('2', '3'): pytest.approx(.7)}
    assert told.rows('similar_blocks')['alex', 'softmax', 'all', '0.9']['of all, %'].text == '33.3'
    run = told.rows('training')['retina', 'coco/bbox_mAP']
    names = ('iterations', 'first loss', 'best', 'seconds per iteration')
    assert [run[name].value for name in names] == [6, 10, .06, .5]
    (fast,) = told.rows('speed').items()
    assert fast[0] == ('fast', 'eval', 'small', 'time', 'other', 'x86_64', '2', 'abc1234')
    assert [fast[1][name].value for name in ('ours', "the peer's", 'ratio')] == [.002, .005, 2.5]
    points = numbers['strengths']['figures']['strength_1']['points']
    assert [(point['share'], point['value']) for point in points] == [
        (0, pytest.approx(1 - ALEXNET_CLEAN / 2)), (.25, pytest.approx(.45)), (.5, pytest.approx(.2))]


def test_every_figure_shows_something(report, told):
    names = [figure.name for figure in report.parts(Figure)]
    assert len(names) == len(set(names)) > 15 and len(told.ids) == len(set(told.ids))
    for figure in report.parts(Figure):
        assert figure.caption and figure.points and told.figures[figure.name], figure.name
        assert told.shapes[figure.name] > 5, figure.name


def test_page_makes_no_requests(html, told):
    assert [link for link in told.links if not link.startswith(('#', 'data:'))] == []
    assert '@import' not in html and 'url(http' not in html
    assert "font-family: 'DejaVu" not in html and 'font-weight: 700; font-size: 9.5px; text-anchor' in html
    assert told.links.count('data:,') == 1 and sum(link.startswith('data:image/png') for link in told.links) == 1


def test_every_section_has_its_place(report, told):
    assert set(sections.ORDER) <= set(SECTIONS)
    shown = [section.name for section in report.sections if section.parts]
    assert shown == list(sections.ORDER) and set(shown) <= set(told.ids)


def test_a_gap_is_a_dash_with_its_command(tmp_path):
    """Without fog at severity 3: no mean, no CE of fog, no mCE, and the run that would fill it."""
    run = ('tools/eval_imagenet_c.py', '--model', 'alex', '--data', 'my data', '--limit=9', '--corruptions', 'snow')
    store = stores.write_store(tmp_path, stores.corrupted(ALEX, apart_from=['fog(severity=3)']), *run)
    found = sections.make_report([store])
    told = Page(page.as_html(found))
    assert told.rows('errors')['alex', 'fog']['mean'].text == told.rows('ce')['fog',]['alex'].text == '–'
    assert told.rows('ce')['mCE of the fifteen',]['alex'].text == '–'
    row = told.rows('classifiers')['alex', 'imagenet_c, 1000 images']
    assert row['mCE'].text == row['accuracy, corrupted'].text == row['relative mCE'].text == '–'
    assert gaps_of(found)['alex on imagenet_c, 1000 images: no errors under 1 condition (fog), hence no mCE'] == (
        "pit-downstream eval-imagenet-c --model alex --data 'my data' --limit 9 --corruptions fog --severities 3")
    assert gaps_of(found)['alex: no accuracy under attack'] == (
        "pit-downstream eval-adversarial --model alex --data 'my data' --limit 9")
    assert {'no training log', 'no speed', 'no found boxes'} <= set(gaps_of(found))


def test_any_model_may_be_the_reference(kept):
    found = sections.make_report([kept / 'imagenet_c'], reference='half')
    told = Page(page.as_html(found))
    assert told.rows('ce')['fog',]['alex'].text == '200.0' and told.rows('ce')['fog',]['half'].text == '100.0'
    assert told.rows('ce')['mCE of the fifteen',]['alex'].value == pytest.approx(2)
    assert told.rows('difference_1')['clean', 'no']['difference, points'].value == pytest.approx(-ALEXNET_CLEAN / 2)
    with pytest.raises(InputError, match="no one model named 'hal' in these records; did you mean 'half'?"):
        sections.make_report([kept / 'imagenet_c'], reference='hal')


def test_csv_has_every_number_of_the_page(report, told):
    rows = list(csv.DictReader(io.StringIO(exports.as_csv(report))))
    assert tuple(rows[0]) == exports.COLUMNS
    shown = sum(cell.value is not None for table in told.tables.values() for row in table for cell in row)
    assert sum(row['kind'] == 'table' for row in rows) == shown
    assert sum(row['kind'] == 'figure' for row in rows) == sum(len(one.points) for one in report.parts(Figure))
    fog = next(row for row in rows if (row['part'], row['row']) == ('errors', 'half | fog')
               and row['column'] == 'severity 3')
    assert float(fog['value']) == ALEXNET['fog'][2] / 2 and float(fog['low']) == compute_wilson_interval(
        ALEXNET['fog'][2] / 2, 1000)[0]


def test_tables_for_papers(report):
    sheet = next(sheet for sheet in report.parts(Sheet) if sheet.name == 'ce')
    low, high = (100 * sum(ends) / sum(ALEXNET['fog'])
                 for ends in zip(*(compute_wilson_interval(error, 1000) for error in ALEXNET['fog']), strict=True))
    markdown = exports.as_markdown(sheet).splitlines()
    assert markdown[:2] == ['| corruption | alex | half |', '| --- | ---: | ---: |']
    assert any(line.startswith(f'| fog | 100.0 ({low:.1f} to {high:.1f}) | 50.0 (') for line in markdown)
    latex = exports.as_latex(sheet)
    assert r'\begin{tabular}{lrr}' in latex and r'\toprule' in latex and r'\bottomrule' in latex
    assert rf'fog & 100.0 ({low:.1f} to {high:.1f}) & 50.0 (' in latex and 'CE in per cent' in latex


def test_latex_is_escaped():
    sheet = Sheet('a_b', '50 % of A & B – −1', ('x_1', 'p'), ((exports.Cell('a_b'), exports.Cell('< 0.1', .05)),))
    latex = exports.as_latex(sheet)
    assert r'\caption{50 \% of A \& B -- $-$1}' in latex and r'a\_b & $<$ 0.1 \\' in latex
    assert r'\label{tab:a-b}' in latex and r'x\_1 & p \\' in latex


def test_labels_distinguish_models(tmp_path):
    """Two files of weights of one name, and two seeds of one."""
    twin = HALF.replace('0123abcd', '9876abcd')
    records = [*stores.corrupted(HALF, .5), *stores.corrupted(twin, .6)]
    found = sections.make_report([stores.write_store(tmp_path, records)])
    assert found.models == ('half (half@0123)', 'half (half@9876)')


def test_without_verdicts_the_strongest_attack_is_quoted(tmp_path):
    """Records alone do not say which images an attack fooled, so no worst case can be told from two attacks."""
    store = stores.write_store(tmp_path, stores.attacked(HALF))
    (tmp_path / 'verdicts.jsonl').unlink()
    told = Page(page.as_html(sections.make_report([store])))
    assert told.rows('classifiers')['half', 'imagenet_c, 10 of 1000 images', 'the strongest attack, Linf 4/255'][
        'robust accuracy'].text == '40.0'
    assert not [row for row in told.rows('attacks') if 'worst case' in row]
