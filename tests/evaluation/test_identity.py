"""One model for one set of tensors, in every tool, store and report; two models where tensors differ."""

import json
import shutil

import pytest
import safetensors.torch
import timm
import torch

import pit_downstream.backbones  # noqa: F401
from pit_downstream.results.condition import CLEAN
from pit_downstream.results.records import MissingMeasurement, Record, ResultStore, get_model_key, get_weights_label
from pit_downstream.evaluation.attention_analysis import build_model
from pit_downstream.evaluation.models import build_classifier, classifiers, read_weights
from tests.evaluation import toy


def local_dir(folder, *, seed=0, mean=.5, **arguments):
    """Write a resnet10t as `timm.models.save_for_hf` does."""
    torch.manual_seed(seed)
    model = timm.create_model('resnet10t', num_classes=8, **arguments)
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(model.state_dict(), folder / 'model.safetensors')
    config = {'architecture': 'resnet10t', 'num_classes': 8, 'model_args': {'num_classes': 8, **arguments},
              'pretrained_cfg': {'input_size': [3, 32, 32], 'mean': [mean] * 3, 'std': [.25] * 3, 'num_classes': 8,
                                 'label_names': [*toy.WNIDS, *'efgh'], 'crop_pct': 1.0, 'first_conv': 'conv1.0',
                                 'classifier': 'fc'}}
    (folder / 'config.json').write_text(json.dumps(config))
    return folder


def test_a_folder_is_identified_by_its_weights(tmp_path):
    name = f'local-dir:{local_dir(tmp_path / "m")}'
    first = build_classifier(name).name
    shutil.copytree(tmp_path / 'm', tmp_path / 'moved')
    moved = build_classifier(f'local-dir:{tmp_path / "moved"}').name
    assert get_model_key(moved) == get_model_key(first)
    assert str(tmp_path) in first and str(tmp_path) not in get_model_key(first)
    local_dir(tmp_path / 'm', seed=1)
    other = build_classifier(name).name
    local_dir(tmp_path / 'm', mean=.4)
    normalized = build_classifier(name).name
    local_dir(tmp_path / 'm', output_stride=16)  # no tensor tells it
    strided = build_classifier(name).name
    assert len({*map(get_model_key, (first, other, normalized, strided))}) == 4


def test_other_weights_in_a_folder_are_measured(tmp_path, run_tool):
    toy.pictures(tmp_path / 'val', 12)
    flags = ('--model', 'local-dir:m', '--data', 'val', '--output-dir', 'store', '--corruptions', 'contrast',
             '--severities', '1', '--json')
    errors = []
    for seed in (0, 1, 0):
        local_dir(tmp_path / 'm', seed=seed)
        done = run_tool('eval_imagenet_c.py', *flags, f'{len(errors)}.json')
        assert done.code == 0, done.err
        rows = json.loads((tmp_path / f'{len(errors)}.json').read_text())['records']
        errors.append([row['value'] for row in rows if row['metric'] == 'nll'])
    assert errors[0] == errors[2] != errors[1] and errors[0]


def test_names_of_files_do_not_count(tmp_path):
    state = timm.create_model('pit_ti(num_classes=4)'.partition('(')[0], num_classes=4).state_dict()
    torch.save(state, tmp_path / 'a.pth')
    torch.save({'model_ema': {f'module.{name}': value for name, value in state.items()}}, tmp_path / 'b.pth')
    safetensors.torch.save_file(state, tmp_path / 'c.safetensors')
    torch.save({**state, 'head.bias': state['head.bias'] + 1}, tmp_path / 'd.pth')
    names = [build_classifier('pit_ti(num_classes=4)', weights=tmp_path / file).name
             for file in ('a.pth', 'b.pth', 'c.safetensors', 'd.pth')]
    assert len(set(names)) == 4 and len(set(map(get_model_key, names[:3]))) == 1 != len(set(map(get_model_key, names)))
    assert [get_weights_label(name) for name in names] == ['a.pth', 'b.pth', 'c.safetensors', 'd.pth']


@pytest.mark.parametrize('weights', ['pretrained', 'random', 'FILE'])
def test_every_builder_gives_one_name(weights, tmp_path, monkeypatch):
    """Of eval_*, analyze_attention and the sources of transfers; timm's download is replaced by fixed weights."""
    make = timm.create_model

    def create_model(name, pretrained=False, **kwargs):
        if pretrained and 'pretrained_cfg_overlay' not in kwargs:
            torch.manual_seed(9)
        return make(name, pretrained=pretrained and 'pretrained_cfg_overlay' in kwargs, **kwargs)
    monkeypatch.setattr(timm, 'create_model', create_model)
    torch.save(make('pit_ti').state_dict(), tmp_path / 'w.pth')
    weights = str(tmp_path / 'w.pth') if weights == 'FILE' else weights
    names = [build_classifier('pit_ti', weights=weights).name, build_model('pit_ti', weights).name,
             classifiers()(f"pit_ti(weights='{weights}')").name,
             *([build_classifier('pit_ti').name, build_model('pit_ti').name] if weights == 'pretrained' else [])]
    assert len(set(map(get_model_key, names))) == 1 and len(set(map(get_weights_label, names))) == 1
    assert get_weights_label(names[0]) == {'pretrained': 'timm/pit_ti_224.in1k', 'random': 'random'}.get(weights,
                                                                                                         'w.pth')


def test_seeds_of_random_weights_are_models_of_their_own():
    names = [build_classifier('pit_ti', weights='random', seed=seed).name for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2] and get_model_key(names[0]) != get_model_key(names[2])


def test_tags_and_visible_arguments_do_not_count():
    assert get_model_key("pit_s_224.in1k(weights='timm/a@0123456789abcdef')") == get_model_key(
        "pit_s_224(num_classes=1000, weights='b.pth@0123456789abcdef')") == "pit_s_224(weights='@0123456789abcdef')"
    function = "a.b:c(num_classes=3, weights='x@0123456789abcdef')"
    assert get_model_key(function) == "a.b:c(num_classes=3, weights='@0123456789abcdef')"
    for name in ('alex', "x(weights='w.pth@01234567')", 'not a Spec @'):
        assert get_model_key(name) == name


def test_a_store_finds_numbers_under_another_file_name(tmp_path):
    store = ResultStore(tmp_path / 'results.jsonl')
    name = "pit_s(weights='{}@{}')".format
    first, copy, other = name('a.pth', '0' * 16), name('b.pth', '0' * 16), name('a.pth', '1' * 16)
    store.add(Record(first, 'd', str(CLEAN), 'top1_error', .25, 8, 0))
    assert store.table(copy, 'd')[CLEAN, 'top1_error'] == .25
    assert store.table(copy, 'd').records == store.table(first, 'd').records != ()
    assert not len(store.table(other, 'd'))
    with pytest.raises(MissingMeasurement):
        store.table(other, 'd')[CLEAN, 'top1_error']


def test_a_copy_of_the_weights_is_not_measured_again(tmp_path, run_tool):
    toy.pictures(tmp_path / 'val', 12)
    flags = ('--model', toy.FOUR, '--data', 'val', '--output-dir', 'store', '--attacks', 'fgsm', '--epsilons', '1/255')
    for file in ('a.pth', 'b.pth'):
        torch.save(toy.classifier(4).state_dict(), tmp_path / file)
    assert run_tool('eval_adversarial.py', *flags, '--weights', 'a.pth', '--save-images', 'images').code == 0
    before = {path: path.read_bytes() for path in (tmp_path / 'store').iterdir()}
    done = run_tool('eval_adversarial.py', *flags, '--weights', 'b.pth', '--save-images', 'images')
    assert done.code == 0 and "weights='b.pth@" in done.out, done.err
    assert {path: path.read_bytes() for path in (tmp_path / 'store').iterdir()} == before


def test_the_report_shows_one_model_per_set_of_tensors_and_marks_random_ones(tmp_path, run_tool):
    store = ResultStore(tmp_path / 'results.jsonl')
    names = ["a(weights='x.pth@0000000000000000')", "a(num_classes=8, weights='y.pth@0000000000000000')",
             "a(weights='x.pth@1111111111111111')", "b(weights='random@2222222222222222')"]
    for number, name in enumerate(names):
        store.add(Record(name, "folder(images=8, root='v')", ('clean', 'fog(severity=1)')[number % 2], 'top1_error',
                         .25, 8, 0))
    done = run_tool('make_report.py', 'results.jsonl', '--output', 'r.html', '--tables', 'tables')
    assert done.code == 0, done.err
    page = (tmp_path / 'r.html').read_text()
    assert 'b, random weights' in page and page.count('random weights') >= 1 and '3 models' in done.out + page


def test_arguments_that_names_need_are_refused():
    for argument in ('amp', 'mean', 'std', 'search'):
        with pytest.raises(ValueError, match=f"'{argument}'"):
            build_classifier(f'{toy.NAME}({argument}=1)')
    with pytest.raises(ValueError, match='given twice'):
        build_classifier(f"{toy.NAME}(weights='a.pth')", weights='b.pth')
    with pytest.raises(ValueError, match='--weights'):
        build_classifier(toy.NAME, weights='random')


EMPTY = [{}, {'state_dict': {}}, {'state_dict_ema': {}, 'state_dict': {}}, {'model_ema': {}, 'meta': {'epoch': 3}},
         {'state_dict': {'epoch': 3}}]


@pytest.fixture
def offline(monkeypatch):
    """timm's published weights would be random ones here: nothing is downloaded."""
    def published(location, *args, **kwargs):
        raise AssertionError(f'published weights were loaded: {location}')
    for name in ('load_state_dict_from_hf', 'load_state_dict_from_url', 'load_state_dict_from_path'):
        monkeypatch.setattr(f'timm.models._builder.{name}', published)


@pytest.mark.parametrize('name', ['pit_ti', 'resnet18', 'torchvision:resnet18', toy.NAME])
@pytest.mark.parametrize('content', EMPTY, ids=str)
def test_files_without_tensors_are_refused(name, content, tmp_path, offline):
    torch.save(content, tmp_path / 'w.pth')
    with pytest.raises(ValueError, match='no tensors: .*w.pth'):
        build_classifier(name, weights=tmp_path / 'w.pth')


@pytest.mark.parametrize('name', ['pit_ti', 'resnet18', 'torchvision:resnet18', toy.NAME])
@pytest.mark.parametrize('wrap', [lambda state: {'state_dict_ema': {}, 'state_dict': state},
                                  lambda state: {'model_ema': {}, 'model': state},
                                  lambda state: {'state_dict': {'epoch': 3}, 'model': state}])
def test_entries_without_tensors_are_skipped(name, wrap, tmp_path, offline):
    torch.manual_seed(3)
    model = build_classifier(name, weights=None if name == toy.NAME else 'random', seed=5).model
    torch.save(wrap(model.state_dict()), tmp_path / 'w.pth')
    loaded = build_classifier(name, weights=tmp_path / 'w.pth').model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in model.state_dict().items())


LOADING = [
    ('eval_imagenet_c.py', ['--model', 'pit_ti', '--weights', 'w.pth', '--data', 'val']),
    ('eval_adversarial.py', ['--model', 'pit_ti', '--weights', 'w.pth', '--data', 'val', '--attacks', 'noise']),
    ('analyze_attention.py', ['--model', 'pit_ti', '--weights', 'w.pth', '--data', 'val', '--output-dir', 'out']),
    ('export.py', ['--model', 'pit_ti', '--weights', 'w.pth', '--output', 'x.onnx'])]


@pytest.mark.parametrize('tool, flags, content', [(*tool, content) for tool in LOADING for content in EMPTY[:3]] + [
    ('convert_weights.py', ['w.pth', '--output', 'o.pth', '--model', 'pit_ti'], EMPTY[2])], ids=str)
def test_tools_refuse_files_without_tensors(tool, flags, content, tmp_path, run_tool, offline):
    toy.pictures(tmp_path / 'val', 4)
    torch.save(content, tmp_path / 'w.pth')
    done = run_tool(tool, *flags, subprocess=tool == 'convert_weights.py')  # mmengine's logger keeps its first stream
    assert done.code == 2 and 'has no tensors: w.pth' in done.err.splitlines()[-1]
    assert not any((tmp_path / name).exists() for name in ('store', 'out', 'x.onnx', 'o.pth'))


def test_a_file_replaces_the_weights_of_a_folder(tmp_path):
    """timm reads the folder although it is given tensors."""
    name = f'local-dir:{local_dir(tmp_path / "m")}'
    torch.manual_seed(7)
    given = timm.create_model('resnet10t', num_classes=8).state_dict()
    torch.save(given, tmp_path / 'w.pth')
    loaded = build_classifier(name, weights=tmp_path / 'w.pth').model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in given.items())


def test_entries_of_a_file_without_a_state_dict_are_named(tmp_path):
    torch.save({'net': {'weight': torch.ones(1)}, 'acc': 91.5}, tmp_path / 'w.pth')
    with pytest.raises(ValueError, match='w.pth .*net, acc'):
        read_weights(tmp_path / 'w.pth')
