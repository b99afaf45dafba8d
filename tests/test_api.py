"""The Python API, on bundled and tiny data with random weights."""

import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import pit_downstream as pit
from pit_downstream.benchmarks.base import Benchmark, Layout
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.intervals import Estimate, compute_paired_interval
from pit_downstream.results.records import MissingMeasurement
from pit_downstream.results.results import COLUMNS
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Spec
from tests.evaluation import toy

SMALL = 'pit_ti(img_size=64, num_classes=4)'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return toy.recognised(tmp_path_factory.mktemp('images') / 'val')


class Dataset:
    """Twenty images of four classes, as a dataset of torchvision has them."""

    name = 'squares'

    def __len__(self):
        return 20

    def __getitem__(self, index):
        random = np.random.default_rng(index)
        image = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((40, 40))
        return image, index % 4


class Net(nn.Module):
    def __init__(self, scale=1.):
        super().__init__()
        torch.manual_seed(0)
        self.scale, self.head = scale, nn.Linear(48, 4)

    def forward(self, images):
        return self.scale * self.head(nn.functional.adaptive_avg_pool2d(images, 4).flatten(1))


def wrap(module=None, **options):
    return pit.classifier(module or Net(), mean=(.5, .5, .5), std=(.5, .5, .5), img_size=32, name='net', **options)


def test_import_is_lazy():
    code = "import sys, pit_downstream; assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    subprocess.run([sys.executable, '-c', code], check=True)
    assert set(pit.__all__) <= set(dir(pit))


def test_named_model_on_bundled_data(few_shapes, tmp_path):
    results = pit.evaluate(SMALL, 'imagenet_c(corruptions=("fog",), severities=(1, 3))', weights='random',
                           data=few_shapes / 'classification/val', output_dir=tmp_path)
    assert list(results.frame.columns) == list(COLUMNS)
    assert set(results.frame.condition) == {'clean', 'fog(severity=1)', 'fog(severity=3)'}
    assert set(results.frame.benchmark) == {'imagenet_c'} and set(results.frame.schema) == {1}
    assert set(results.frame.weights_digest) == {results.model.partition('@')[2][:16]}
    with pytest.raises(MissingMeasurement, match='no top1_error'):
        print(results.summary)
    assert [gap.what for gap in results.gaps] == ['no mean accuracy of all 75: 73 conditions (gaussian_noise, '
                                                  'shot_noise, impulse_noise, defocus_blur and 11 more) not measured']
    assert (tmp_path / 'results.jsonl').exists() and (tmp_path / 'outcomes.jsonl').exists()


def test_module_on_a_dataset_object(tmp_path):
    benchmark = pit.benchmarks.ImageNetC(corruptions=('brightness',), severities=(1, 3, 5))
    stored = pit.evaluate(wrap(), benchmark, data=Dataset(), output_dir=tmp_path)
    in_memory = pit.evaluate(wrap(), benchmark, data=Dataset())
    assert stored.records == in_memory.records and len(stored.frame) == 4 * 4
    assert stored.table.dataset.startswith('dataset(') and "root='squares'" in stored.table.dataset
    assert {record.count for record in stored.records} == {20}
    text = (tmp_path / 'outcomes.jsonl').read_bytes()
    assert pit.evaluate(wrap(), benchmark, data=Dataset(), output_dir=tmp_path).records == stored.records
    assert (tmp_path / 'outcomes.jsonl').read_bytes() == text  # nothing is evaluated again


def test_arrays_and_tensors_are_the_same_images():
    class Arrays(Dataset):
        def __init__(self, convert):
            self.convert = convert

        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return self.convert(np.array(image)), torch.tensor(label)
    benchmark = pit.benchmarks.ImageNetC(corruptions=(), severities=(1,))
    tables = [pit.evaluate(wrap(), benchmark, data=data).records for data in (
        Dataset(), Arrays(lambda array: array), Arrays(lambda array: torch.from_numpy(array).permute(2, 0, 1)))]
    assert tables[0] == tables[1] == tables[2]


def test_identity_of_a_module_covers_what_is_not_in_its_tensors():
    names = {wrap(module).name for module in (Net(), Net(), Net(scale=2.), nn.Sequential(Net()))}
    assert len(names) == 3
    digests = set()
    for change in (0, 1):
        class Changed(Dataset):
            def __getitem__(self, index, change=change):
                image, label = super().__getitem__(index)
                return image, (label + change * (index == 7)) % 4
        digests.add(pit.evaluate(wrap(), pit.benchmarks.Adversarial(attacks=()), data=Changed()).table.dataset)
    assert len(digests) == 2


def test_objects_without_a_name_cannot_be_stored(tmp_path):
    unnamed = pit.classifier(Net(), mean=.5, std=.5, img_size=32)
    with pytest.raises(InputError, match='module object needs a name .*pit.classifier'):
        pit.evaluate(unnamed, 'occlusion', data=Dataset(), output_dir=tmp_path)
    data = [Dataset()[index] for index in range(4)]
    with pytest.raises(InputError, match='dataset object needs a name .*attribute `name`'):
        pit.evaluate(wrap(), 'occlusion', data=data, output_dir=tmp_path)
    assert not (tmp_path / 'results.jsonl').exists()
    assert len(pit.evaluate(unnamed, pit.benchmarks.Adversarial(attacks=()), data=data).frame) == 1


def test_detector_on_bundled_data(tmp_path, few_shapes, monkeypatch):
    monkeypatch.chdir(tmp_path)
    detector = pit.detector('retinanet_pit_ti', 'random')
    benchmark = pit.benchmarks.CocoC(corruptions=('fog',), severities=(3,))
    results = pit.evaluate(detector, benchmark, data=str(few_shapes), bundled=True, limit=3, output_dir='out')
    assert set(results.frame.metric) >= {'AP', 'AP50'} and set(results.frame['count']) == {3}
    assert {path.name.split('-')[1] for path in (tmp_path / 'out/detections').glob('*.jsonl')} == {
        'clean', 'fog_severity_3'}
    attacked = pit.evaluate(detector, 'adversarial(attacks=("noise",), epsilons=("8/255",))', data=str(few_shapes),
                            bundled=True, limit=2)
    assert attacked.benchmark.name == 'detection_attacks' and len(attacked.sheets) == 1


def test_shifts_and_attention_and_occlusion(folder, tmp_path):
    shifted = pit.evaluate(toy.FOUR, f'shifts(shifts=("shift_copy={toy.pictures(tmp_path / "copy")}",))', data=folder)
    assert set(shifted.summary) == {'shift_copy_error', 'shift_copy_gap'}
    attention = pit.evaluate(SMALL, 'attention', weights='random', data=folder, limit=4)
    assert 'softmax_similar_blocks(threshold=0.9)@stage1' in attention.summary
    occluded = pit.evaluate(toy.FOUR, 'occlusion(shares=("0.5",))', data=folder)
    assert set(occluded.frame.corruption) == {'', 'occlusion'}


def test_attack_returns_images_in_the_ball_and_outcomes(folder):
    model = wrap()
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = model.logits(images).argmax(1)
    labels[0] = (labels[0] + 1) % 4
    adversarial, outcomes = pit.attack(model, images, labels, 'pgd(steps=20)', epsilon=8 / 255, batch_size=4)
    assert (adversarial - images).abs().max() <= 8 / 255 + 1e-6 and adversarial.shape == images.shape
    assert outcomes.was_correct.tolist() == [False, True, True, True, True, True]
    assert torch.equal(adversarial[0], images[0]) and outcomes.forwards > 0 and outcomes.backwards > 0
    correct = (model.logits(adversarial).argmax(1) == labels).numpy()
    assert np.array_equal(correct, outcomes.is_correct) and outcomes.robust_accuracy == correct.mean()
    whole = pit.attack(model, images, labels, 'pgd(steps=20)', epsilon=8 / 255)[0]
    assert torch.equal(whole, adversarial)


@pytest.mark.parametrize('change, words', [
    ({'images': torch.rand(2, 3, 32, 32) * 255}, 'in \\[0, 1\\]'), ({'labels': torch.tensor([0, 4])}, 'got 0..4'),
    ({'labels': torch.tensor([0])}, r'got torch.float32 \(2, 3, 32, 32\) and \(1,\)'),
    ({'attack': 'pgdd'}, "no attack named 'pgdd'"), ({'epsilon': None}, 'has no epsilon. Pass epsilon=8/255')])
def test_attack_refuses_bad_input(change, words):
    given = {'images': torch.rand(2, 3, 32, 32), 'labels': torch.tensor([0, 1]), 'attack': 'pgd', 'epsilon': .1}
    with pytest.raises(InputError, match=words):
        pit.attack(wrap(), **{**given, **change})


@pytest.mark.parametrize('benchmark', [
    pit.benchmarks.ImageNetC(corruptions=('contrast',), severities=(1, 5)),
    pit.benchmarks.Adversarial(attacks=('fgsm',), epsilons=('4/255',)),
    pit.benchmarks.Occlusion(shares=('0.5',), shapes=('random',))], ids=lambda benchmark: benchmark.name)
def test_compare_pairs_every_benchmark_by_image(folder, benchmark):
    """The differences of the toy and a copy that prefers one class, recounted by hand from both outcomes."""
    other = toy.Toy(4)
    with torch.no_grad():
        other.head.bias[1] = .5
    first = pit.evaluate(toy.FOUR, benchmark, data=folder)
    second = pit.evaluate(pit.classifier(other, name='other'), benchmark, data=folder)
    frame = pit.compare(first, second)
    errors = frame[frame.metric == 'top1_error']
    assert len(errors) == len(benchmark.conditions()) and errors.paired.all() and (errors['count'] == 40).all()
    for row in errors.itertuples():
        before, after = (results.get_outcomes(Condition.parse(row.condition), 'top1_error')
                         for results in (first, second))
        gained, lost = ((before == 1) & (after == 0)).sum(), ((before == 0) & (after == 1)).sum()
        assert row.difference == (gained - lost) / 40
        assert (row.low, row.high) == compute_paired_interval(gained, lost, 40)
    assert errors.difference.abs().max() > 0


def test_compare_refuses_other_images(folder):
    first, second = (pit.evaluate(toy.FOUR, pit.benchmarks.Adversarial(attacks=()), data=folder, limit=limit)
                     for limit in (10, 20))
    with pytest.raises(InputError, match='no condition on the same images'):
        pit.compare(first, second)


def test_list_models():
    assert pit.list_models('pit_s*')[0] == 'pit_s' and 'resnet50' in pit.list_models('resnet*')
    assert set(pit.list_models('deepvit_*')) >= {'deepvit_s', 'deepvit_l'}


@pytest.mark.parametrize('arguments, words', [
    ((toy.FOUR, 'imagenet'), "no benchmark named 'imagenet'; did you mean"),
    ((toy.FOUR, 'coco_c'), 'coco_c is for a detector, got a classifier. Choose one of .*imagenet_c'),
    ((toy.FOUR, 'imagenet_c(levels=(1,))'), 'no such argument of the benchmark'),
    ((toy.FOUR, 'imagenet_c(severities=(0,))'), 'severities must be in 1..5'),
    ((toy.FOUR, 'occlusion'), 'no folder of images: data/imagenet/val')])
def test_evaluate_refuses_bad_input(arguments, words):
    with pytest.raises(InputError, match=words):
        pit.evaluate(*arguments)


def test_module_without_normalization_is_refused():
    with pytest.raises(InputError, match='normalization of Net is not known. Wrap it: pit.classifier'):
        pit.evaluate(Net(), 'occlusion', data=Dataset())


def test_float_images_are_refused():
    data = [(torch.rand(3, 40, 40), 0)] * 3
    with pytest.raises(InputError, match='sample 0 must be a PIL image or uint8 pixels before normalization, got '
                                         'torch.float32'):
        pit.evaluate(wrap(), 'occlusion', data=data)


@BENCHMARKS.register('darkness')
@dataclass(frozen=True)
class Darkness(Benchmark):
    """Errors under growing darkness."""

    name, title, layout = 'darkness', 'Darkness', Layout(rows='corruption', columns='severity')
    severities: tuple[int, ...] = (1, 3, 5)

    def conditions(self):
        return CLEAN, *(Condition(Spec.of('toy_dark', severity=severity)) for severity in self.severities)

    def summarize(self, results):
        errors = [results.table[condition, 'top1_error'] for condition in self.conditions()]
        return {'mean_error': Estimate(math.fsum(errors) / len(errors))}


def test_custom_benchmark_has_table_command_and_report_section(folder, tmp_path):
    results = pit.evaluate(toy.FOUR, Darkness(), data=folder, output_dir=tmp_path, argv=[
        'pit-downstream evaluate', '--benchmark', 'darkness', '--model', toy.FOUR])
    assert results.summary['mean_error'].value == results.frame.value.mean()
    assert 'toy_dark' in str(results) and 'mean error' in str(results) and not results.gaps
    partial = pit.evaluate(toy.FOUR, Darkness(severities=(1,)), data=folder)
    gaps = type(partial)(Darkness(), partial.tables, argv=results.argv).gaps
    assert gaps[0].command.startswith('pit-downstream evaluate --benchmark darkness') and len(gaps) == 1
    from pit_downstream.report.sections import make_report
    report = make_report([tmp_path])
    section = next(section for section in report.sections if section.title == 'Darkness')
    assert any(cell.value == results.table[CLEAN, 'top1_error'] for part in section.parts if hasattr(part, 'rows')
               for row in part.rows for cell in row)


def test_custom_benchmark_is_a_tool(folder, tmp_path, run_tool):
    done = run_tool('evaluate.py', '--benchmark', 'darkness', '--import', 'tests.test_api', '--model', toy.FOUR,
                    '--data', folder, '--severities', 1, 5, '--csv', 'numbers.csv', '--latex', 'table.tex',
                    '--markdown', 'table.md', '--json', 'numbers.json', '--workers', 0)
    assert done.code == 0, done.err
    assert 'toy_dark' in done.out and 'mean error' in done.out
    frame = pd.read_csv(tmp_path / 'numbers.csv')
    assert list(frame.columns) == list(COLUMNS) and len(frame) == 3
    assert json.loads((tmp_path / 'numbers.json').read_text())['summary']['mean_error']['value'] == frame.value.mean()
    assert r'\toprule' in (tmp_path / 'table.tex').read_text()
    assert '| toy_dark |' in ' '.join((tmp_path / 'table.md').read_text().split())


def test_dry_run_prints_conditions_time_and_disk(folder, tmp_path, capsys):
    results = pit.evaluate(toy.FOUR, pit.benchmarks.Adversarial(attacks=('pgd(steps=3)',), epsilons=('1/255', '4/255')),
                           data=folder, output_dir=tmp_path, dry_run=True)
    text = capsys.readouterr().out
    assert '3 of 3 conditions remain, 40 images each' in text
    assert re.search(r'pgd\(.*\): 2 conditions, at most about \d+:\d\d', text)
    assert 'time: about' in text and 'MB' in text and not results.records
    assert not (tmp_path / 'outcomes.jsonl').exists() and not (tmp_path / 'runs.jsonl').exists()




def test_a_module_is_in_evaluation_mode_and_keeps_its_own(folder):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(.5), torch.nn.Linear(3 * 32 * 32, 4))
    model = pit.classifier(module, mean=.5, std=.5, img_size=32, name='net')
    module.train()
    values = [pit.evaluate(model, pit.benchmarks.ImageNetC(corruptions=(), severities=(1,)), data=folder,
                           progress=False).frame['value'].tolist() for _ in range(2)]
    assert values[0] == values[1] and module.training and module[1].training


def test_an_adapter_is_identified_by_its_current_weights(folder, tmp_path):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
    model = pit.classifier(module, mean=.5, std=.5, img_size=32, name='net')
    clean = pit.benchmarks.ImageNetC(corruptions=(), severities=(1,))
    before = pit.evaluate(model, clean, data=folder, output_dir=tmp_path, progress=False)
    with torch.no_grad():
        module[1].weight.mul_(50)
    after = pit.evaluate(model, clean, data=folder, output_dir=tmp_path, progress=False)
    fresh = pit.evaluate(model, clean, data=folder, progress=False)
    assert before.model != after.model == fresh.model
    assert after.frame['value'].tolist() == fresh.frame['value'].tolist() != before.frame['value'].tolist()


def test_arguments_of_an_attack_count_once():
    model, images, labels = pit.classifier(toy.FOUR), torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
    for attack, options, message in [
            ('pgd(epsilon=2/255)', {'epsilon': 8 / 255}, 'epsilon is 2/255 in'),
            ("pgd(norm='L2', epsilon=1)", {'norm': 'Linf'}, 'norm is L2 in'), ('pgd', {}, 'has no epsilon')]:
        with pytest.raises(InputError, match=message):
            pit.attack(model, images, labels, attack, **options)
    adversarial, _ = pit.attack(model, images, labels, 'pgd(steps=3, epsilon=0.05, run_to_end=True)', norm='L2')
    assert (adversarial - images).flatten(1).norm(dim=1).max() <= .05 + 1e-5


@pytest.mark.parametrize('names', ['abcd', ['a', 'b', 'c'], ['a', 'a', 'b', 'c']])
def test_class_names_that_do_not_match_the_outputs(folder, names):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
    with pytest.raises(InputError, match='class_names must'):
        pit.evaluate(pit.classifier(module, mean=0, std=1, img_size=32, class_names=names), data=folder)


class Pairs(list):
    classes = ('a', 'b', 'c', 'd')


def make_pairs():
    return Pairs((np.full((32, 32, 3), 10 * index, np.uint8), index % 4) for index in range(8))


def test_a_dataset_that_changes_or_has_another_order_of_classes_is_refused():
    class Random(Pairs):
        def __getitem__(self, index):
            return np.random.randint(0, 255, (32, 32, 3), dtype=np.uint8), 0

    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
    options = {'mean': .5, 'std': .5, 'img_size': 32, 'name': 'net'}
    with pytest.raises(InputError, match='other pixels each time'):
        pit.evaluate(pit.classifier(module, **options), data=Random(make_pairs()))
    with pytest.raises(InputError, match='another order'):
        pit.evaluate(pit.classifier(module, class_names=['d', 'a', 'b', 'c'], **options), data=make_pairs())


def test_images_of_16_bits_keep_their_upper_8():
    from pit_downstream.datasets.objects import _convert_image
    gray = Image.fromarray(np.array([[0, 256, 65535]], np.uint16))
    assert np.array(_convert_image(gray, '0'))[0, :, 0].tolist() == [0, 1, 255]
    with pytest.raises(InputError, match='32 .mode F'):
        _convert_image(Image.fromarray(np.zeros((2, 2), np.float32)), '0')


def test_gaps_of_a_call_have_the_command_that_repeats_it(folder, tmp_path):
    results = pit.evaluate(toy.FOUR, pit.benchmarks.ImageNetC(corruptions=('fog', 'contrast'), severities=(1,)),
                           data=folder, output_dir=tmp_path, limit=8, progress=False)
    command = results.gaps[0].command
    assert command.startswith('pit-downstream eval-imagenet-c --model ') and f'--data {folder}' in command
    assert f'--limit 8 --output-dir {tmp_path}' in command and '--severities' in command
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
    results = pit.evaluate(pit.classifier(module, mean=.5, std=.5, img_size=32),
                           pit.benchmarks.ImageNetC(corruptions=('fog',), severities=(1,)), data=folder, progress=False)
    assert results.gaps[0].command == '' and 'pit-downstream' not in str(results)


def test_class_names_of_a_model_by_name_are_checked():
    with pytest.raises(InputError, match='one name per output'):
        pit.classifier(toy.FOUR, class_names=['a', 'b', 'c'])


def test_epsilon_may_be_given_twice_if_equal():
    model, images, labels = pit.classifier(toy.FOUR), torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
    both, once = (pit.attack(model, images, labels, text, **options)[0] for text, options in [
        ('fgsm(epsilon=2/255)', {'epsilon': 2 / 255}), ('fgsm(epsilon=2/255)', {})])
    assert torch.equal(both, once)
    with pytest.raises(InputError, match=r'images must be float \(N, 3, H, W\)'):
        pit.attack(model, images[:, :1], labels, 'fgsm(epsilon=2/255)')
