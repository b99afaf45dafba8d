"""Checkpoints: everything mmengine writes loads again, nothing that asks for code does.

The oracle is the saved object itself, and for harmful files a marker that their payload would leave behind.
"""
import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader, save_checkpoint

import pit_downstream.det  # noqa: F401  registers the loaders
from pit_downstream.training import safe_loading as checkpoint
from pit_downstream.utils.errors import InputError


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        out = self.linear(torch.stack(list(inputs)))
        return {'loss': out.square().mean()} if mode == 'loss' else [out]


class Points(torch.utils.data.Dataset):
    metainfo = {'classes': ('a', 'b'), 'palette': [(1, 2, 3)]}

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {'inputs': torch.tensor([index, 1.])}


class NumpyScore(BaseMetric):
    default_prefix = 'toy'

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return {'score': np.float64(0.25)}


class Start(Hook):
    """What a run begins with."""

    def before_train(self, runner):
        self.epoch, self.iter = runner.epoch, runner.iter
        self.weights = copy.deepcopy(runner.model.state_dict())
        self.optimizer = copy.deepcopy(runner.optim_wrapper.optimizer.state_dict())
        self.losses = len(runner.message_hub.get_scalar('train/loss').data[0])


def runner(folder, name, *, epochs, resume=False):
    loader = {'dataset': Points(), 'batch_size': 2, 'sampler': {'type': 'DefaultSampler', 'shuffle': False}}
    return Runner(
        Toy(), str(folder), train_dataloader=loader, val_dataloader=loader, val_evaluator=[NumpyScore()], val_cfg={},
        train_cfg={'by_epoch': True, 'max_epochs': epochs},
        optim_wrapper={'optimizer': {'type': 'AdamW', 'lr': .01}, 'clip_grad': {'max_norm': 1.}},
        param_scheduler=[{'type': 'LinearLR', 'start_factor': .1, 'by_epoch': False, 'begin': 0, 'end': 2},
                         {'type': 'MultiStepLR', 'milestones': [1]}, {'type': 'CosineAnnealingLR', 'T_max': 2},
                         {'type': 'ReduceOnPlateauLR', 'monitor': 'toy/score'}],
        default_hooks={'checkpoint': {'type': 'CheckpointHook', 'interval': 1, 'save_best': 'toy/score',
                                      'rule': 'greater'}},
        custom_hooks=[{'type': 'EMAHook'}], default_scope='mmengine', log_level='ERROR', experiment_name=name,
        resume=resume)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    first = runner(folder, 'first', epochs=2)
    first.train()
    return folder, first


class Payload:
    def __init__(self, function, *arguments, state=None):
        self.answer = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.answer


def touch(marker):
    return Payload(open, str(marker), 'w')


def saved(path, thing, *, zipped=True):
    torch.save({'state_dict': thing}, path, _use_new_zipfile_serialization=zipped)
    return path


# What mmengine writes


@pytest.mark.parametrize('name', ['epoch_2.pth', 'best_toy_score_epoch_1.pth'])
def test_training_checkpoint_loads_whole(trained, name):
    folder, _ = trained
    loaded = checkpoint.load(folder / name)
    expected = torch.load(folder / name, weights_only=False)  # our own file of a moment ago
    assert loaded.keys() == expected.keys()
    assert {'meta', 'state_dict', 'message_hub', 'ema_state_dict'} <= loaded.keys()
    for key, value in expected['state_dict'].items():
        assert torch.equal(loaded['state_dict'][key], value)
    assert loaded['meta'] == expected['meta']
    assert loaded['message_hub']['runtime_info'] == expected['message_hub']['runtime_info']
    scalars = loaded['message_hub']['log_scalars']
    assert 'train/loss' in scalars
    for key, history in expected['message_hub']['log_scalars'].items():
        assert type(scalars[key]) is HistoryBuffer
        for came, wanted in zip(scalars[key].data, history.data):
            assert type(came) is np.ndarray and came.dtype == wanted.dtype
            np.testing.assert_array_equal(came, wanted)
        assert scalars[key].max_length == history.max_length
        assert scalars[key].mean() == history.mean()


def test_resume_continues_where_training_stopped(trained, tmp_path):
    folder, first = trained
    (tmp_path / 'last_checkpoint').write_text(str(folder / 'epoch_2.pth'))
    second = runner(tmp_path, 'second', epochs=3, resume=True)
    start = Start()
    second.register_hook(start, priority='LOWEST')
    second.train()
    assert (start.epoch, start.iter) == (2, 4)
    for key, value in first.model.state_dict().items():
        assert torch.equal(start.weights[key], value)
    for index, state in first.optim_wrapper.optimizer.state_dict()['state'].items():
        assert torch.equal(start.optimizer['state'][index]['exp_avg'], state['exp_avg'])
    assert start.losses == 4
    assert second.epoch == 3 and (tmp_path / 'epoch_3.pth').exists()


def test_loaded_checkpoint_saved_again_names_no_stand_in(trained, tmp_path):
    folder, _ = trained
    loaded = checkpoint.load(folder / 'epoch_2.pth')
    loaded['array'] = checkpoint.load(saved(tmp_path / 'array.pth', np.arange(3.)))['state_dict']
    torch.save(loaded, tmp_path / 'again.pth')
    again = torch.load(tmp_path / 'again.pth', weights_only=False)
    assert type(again['array']) is np.ndarray
    assert b'pit_downstream' not in pickle.dumps(loaded['array'])
    assert type(again['message_hub']['log_scalars']['train/lr']) is HistoryBuffer


@pytest.mark.parametrize('value', [np.float64(1 / 3), np.float32(.1), np.int64(-5), np.bool_(True), np.uint8(200),
                                   np.arange(6, dtype='>i4').reshape(2, 3), np.asfortranarray(np.ones((2, 3)))])
@pytest.mark.parametrize('zipped', [True, False])
def test_plain_numpy_numbers_load(tmp_path, value, zipped):
    loaded = checkpoint.load(saved(tmp_path / 'x.pth', value, zipped=zipped))['state_dict']
    assert loaded.dtype == pickle.loads(pickle.dumps(value, 2)).dtype  # numpy itself makes it native
    np.testing.assert_array_equal(loaded, value)


def test_numpy_1_names_load(tmp_path):
    path = tmp_path / 'old.pth'
    saved(path, np.float64(1 / 3), zipped=False)
    text = path.read_bytes().replace(b'cnumpy._core.multiarray', b'cnumpy.core.multiarray')
    assert b'cnumpy.core.multiarray' in text
    path.write_bytes(text)
    assert checkpoint.load(path)['state_dict'] == 1 / 3


def test_mmengine_uses_our_loader_for_plain_paths(tmp_path):
    path = str(tmp_path / 'x.pth')
    save_checkpoint({'state_dict': {'a': torch.ones(1)}, 'history': HistoryBuffer([1.], [1])}, path)
    assert CheckpointLoader.load_checkpoint(path, 'cpu', logger='silent')['history'].current() == 1.


def test_other_peoples_safe_globals_stay_but_not_the_originals(tmp_path):
    kept = torch.serialization.get_safe_globals()
    try:
        torch.serialization.add_safe_globals([Payload, np.dtype, np.ndarray])
        assert checkpoint.load(saved(tmp_path / 'x.pth', np.arange(3)))['state_dict'].tolist() == [0, 1, 2]
        entries = torch.serialization.get_safe_globals()
        assert Payload in entries and np.dtype not in entries and getattr not in entries
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(kept)


# What must not run


def forged_dtype():
    """A float type that claims a field inside its eight bytes; with an object there, numpy follows a forged pointer."""
    return Payload(np.dtype, 'f8', False, True, state=(3, '<', None, ('a',), {'a': (np.dtype('f4'), 0)}, 8, 8, 0))


@pytest.mark.parametrize('switch', [None, 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'])
@pytest.mark.parametrize('zipped', [True, False])
def test_payload_does_not_run(tmp_path, monkeypatch, switch, zipped):
    if switch:
        monkeypatch.setenv(switch, '1')
    marker = tmp_path / 'ran'
    path = saved(tmp_path / 'harmful.pth', touch(marker), zipped=zipped)
    with pytest.raises(ValueError, match=r'harmful\.pth was not loaded, because it contains \S*open, which weights '
                                         r'do not need; get the weights as a plain state dict'):
        checkpoint.load(path)
    with pytest.raises(ValueError, match='was not loaded'):
        CheckpointLoader.load_checkpoint(str(path), 'cpu', logger='silent')
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), 'the payload is armed: without our loader it runs'


@pytest.mark.parametrize('thing, name', [
    (Payload(__import__('os').system, 'true'), 'posix.system'),
    (Payload(eval, '1 + 1'), 'eval'),
    (forged_dtype(), 'numpy.dtype with fields'),
    (np.array([None, 1]), r"numpy.dtype\('O8'\)"),
    (np.zeros(2, dtype=[('a', 'f8')]), r"numpy.dtype\('V8'\)"),
    (Payload(np.ndarray, (2,), 'O'), 'numpy.ndarray, called'),
    (Path('x'), r'pathlib\S*'),
])
def test_refusal_names_the_requested_entry(tmp_path, thing, name):
    with pytest.raises(ValueError, match=f'because it contains {name}, which weights do not need'):
        checkpoint.load(saved(tmp_path / 'x.pth', thing))


def test_getattr_yields_nothing(tmp_path):
    loaded = checkpoint.load(saved(tmp_path / 'x.pth', Payload(getattr, HistoryBuffer, '__init__')))
    assert loaded == {'state_dict': None}


def test_methods_in_a_history_are_not_taken(tmp_path):
    history = HistoryBuffer([1.], [1])
    before = dict(HistoryBuffer._statistics_methods)
    try:
        history._statistics_methods['mean'] = torch.Size
        saved(tmp_path / 'x.pth', history)
    finally:
        HistoryBuffer._statistics_methods.clear()
        HistoryBuffer._statistics_methods.update(before)
    assert checkpoint.load(tmp_path / 'x.pth')['state_dict'].statistics('mean') == 1.
    assert HistoryBuffer._statistics_methods == before


@pytest.mark.parametrize('switch', [None, 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'])
def test_downloads_run_no_code_either(tmp_path, monkeypatch, switch):
    """torch.hub finds the file in its cache, so no network is needed; it loads with weights_only=False."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    if switch:
        monkeypatch.setenv(switch, '1')
    cache = tmp_path / 'hub' / 'checkpoints'
    cache.mkdir(parents=True)
    marker = tmp_path / 'ran'
    saved(cache / 'harmful.pth', touch(marker))
    saved(cache / 'resnet18-00000000.pth', touch(marker))
    saved(cache / 'good.pth', HistoryBuffer([2.], [1]))
    monkeypatch.setattr('mmengine.runner.checkpoint.get_torchvision_models',
                        lambda: {'resnet18': 'https://host.invalid/resnet18-00000000.pth'})
    for address in ('https://host.invalid/harmful.pth', 'torchvision://resnet18'):
        with pytest.raises(ValueError, match=f'{address} was not loaded, because it contains'):
            CheckpointLoader.load_checkpoint(address, 'cpu', logger='silent')
    assert not marker.exists()
    good = CheckpointLoader.load_checkpoint('https://host.invalid/good.pth', 'cpu', logger='silent')
    assert good['state_dict'].current() == 2.
    torch.hub.load_state_dict_from_url('https://host.invalid/harmful.pth')
    assert marker.exists(), 'the payload is armed, and the environment is as it was'


# What is no checkpoint


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r'no checkpoint at \S*nowhere\.pth; give the path of an existing'):
        checkpoint.load(tmp_path / 'nowhere.pth')
    with pytest.raises(InputError, match='no checkpoint at'):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('share', [.1, .5, .9, .99])
def test_truncated_file(tmp_path, zipped, share):
    path = saved(tmp_path / 'x.pth', torch.arange(1000.), zipped=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[:int(share * len(whole))])
    with pytest.raises(ValueError, match=r'x\.pth is cut short, damaged or not written by torch\.save '
                                         r'\(\d+ bytes\); download or copy it again'):
        checkpoint.load(path)


@pytest.mark.parametrize('content, words', [
    (b'', 'is empty'),
    (b'\n<!DOCTYPE html><html>', 'is a web page, not a checkpoint'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n', 'is a Git LFS pointer.*git lfs pull'),
    (b'hello world', r"is not a file that torch.save wrote \(it begins with b'hello wo'\)"),
    (pickle.dumps({'a': 1}, protocol=2), 'not written by torch.save'),
])
def test_file_of_another_kind(tmp_path, content, words):
    path = tmp_path / 'x.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        checkpoint.load(path)


# timm://


@pytest.mark.parametrize('name', ['pit_s_224.in1k', 'pit_s_224'])
def test_timm_scheme_gives_the_state_dict(monkeypatch, name):
    asked = {}

    def create_model(name, *, pretrained):
        asked.update(name=name, pretrained=pretrained)
        return torch.nn.Linear(2, 1)

    monkeypatch.setattr('timm.create_model', create_model)
    weights = CheckpointLoader.load_checkpoint(f'timm://{name}', 'cpu', logger='silent')
    assert asked == {'name': name, 'pretrained': True}
    assert {key: value.shape for key, value in weights.items()} == {'weight': (1, 2), 'bias': (1,)}


def test_timm_scheme_offline(monkeypatch):
    def create_model(name, *, pretrained):
        raise ConnectionError('no route')

    monkeypatch.setattr('timm.create_model', create_model)
    with pytest.raises(InputError, match=r'the weights timm://pit_s_224\.in1k could not be downloaded '
                                           r'\(ConnectionError\); give a local file with --cfg-options '
                                           r'model\.backbone\.init_cfg\.checkpoint=FILE'):
        CheckpointLoader.load_checkpoint('timm://pit_s_224.in1k', 'cpu', logger='silent')


@pytest.mark.parametrize('name', ['pit_s_2', 'pit_s_224.in22k'])
def test_timm_scheme_unknown_name(name):
    with pytest.raises(InputError, match=rf"timm has no weights named '{name}'; did you mean .*pit_s_224\.in1k"):
        CheckpointLoader.load_checkpoint(f'timm://{name}', 'cpu', logger='silent')
