"""`load_from` takes a classifier's checkpoint for the detector's backbone, through mmengine's own Runner."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from pathlib import Path

import pit_downstream.det  # noqa: F401
from tests.reference import formula

OFFICIAL = formula.weights(formula.SHAPES['pit_ti'])
CONFIG = Path(__file__).parents[2] / 'configs' / 'retinanet_pit_ti.py'


def runner(tmp_path, checkpoint, *hooks):
    torch.save(checkpoint, tmp_path / 'w.pth')
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone.init_cfg = None
    init_default_scope('mmdet')
    return Runner(model=cfg.model, work_dir=str(tmp_path), custom_hooks=[*cfg.custom_hooks, *hooks], log_level='ERROR',
                  load_from=str(tmp_path / 'w.pth'), default_scope='mmdet', experiment_name=tmp_path.name)


@pytest.mark.parametrize('hooks', [(), ({'type': 'EMAHook'},)], ids=['', 'averaged'])
@pytest.mark.parametrize('wrap', [
    lambda state: state,
    lambda state: {'model': state},
    lambda state: {'state_dict_ema': state, 'state_dict': {name: value + 9 for name, value in state.items()}},
    lambda state: {'state_dict': {f'backbone.{name}': value for name, value in state.items()}},
    lambda state: {f'module.backbone.{name}': value for name, value in state.items()},
], ids=['official', 'deit', 'ema', 'detector', 'ddp'])
def test_load_from_fills_the_backbone(wrap, hooks, tmp_path):
    run = runner(tmp_path, wrap(OFFICIAL), *hooks)
    run.call_hook('before_run')
    run.load_or_resume()
    averaged = [hook.ema_model.module for hook in run.hooks if hasattr(hook, 'ema_model')]
    for model in [run.model, *averaged]:
        state = model.backbone.state_dict()
        assert all(torch.equal(state[name], OFFICIAL[name]) for name in state if not name.startswith('norm'))
    assert len(averaged) == len(hooks)


def test_load_from_refuses_another_model(tmp_path):
    with pytest.raises(ValueError, match='expected a checkpoint with PiT weights'):
        runner(tmp_path, {'conv1.weight': torch.ones(1)}).load_or_resume()


def test_load_from_skips_entries_without_tensors(tmp_path):
    run = runner(tmp_path, {'state_dict': {}, 'model': {f'backbone.{name}': value for name, value in OFFICIAL.items()}})
    run.load_or_resume()
    state = run.model.backbone.state_dict()
    assert all(torch.equal(state[name], OFFICIAL[name]) for name in state if not name.startswith('norm'))


@pytest.mark.parametrize('checkpoint', [{}, {'state_dict': {}}, {'state_dict': {}, 'meta': {'epoch': 3}}])
def test_load_from_refuses_a_file_without_tensors(checkpoint, tmp_path):
    with pytest.raises(ValueError, match='has no tensors: .*w.pth'):
        runner(tmp_path, checkpoint).load_or_resume()
