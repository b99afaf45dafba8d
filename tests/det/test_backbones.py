"""Backbones registered in mmdet: init_cfg, mmengine's loader and logger, and image sizes."""

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.runner import load_checkpoint

import pit_downstream.det  # noqa: F401
from mmdet.registry import MODELS
from pit_downstream import backbones
from pit_downstream.backbones.multi_scale import DetectionBackbone
from pit_downstream.det.backbones import PiT
from tests.backbones.test_weights import CHECKPOINTS, OFFICIAL, REFUSED


def save_pretrained(checkpoint, path):
    torch.save(checkpoint, path)
    return dict(type='Pretrained', checkpoint=str(path))


@pytest.mark.parametrize('arguments', [dict(type='PiT', arch='ti'), dict(type='DeepViT', arch='16', out_indices=(0,),
                                                                         out_strides=(16,))])
def test_registered_backbones_have_the_state_dicts_of_the_plain_ones(arguments):
    torch.manual_seed(0)
    registered = MODELS.build(dict(arguments))
    torch.manual_seed(0)
    plain = getattr(backbones, arguments.pop('type'))(**arguments)
    assert isinstance(registered, BaseModule) and isinstance(registered, DetectionBackbone)
    assert type(registered).__name__ == type(plain).__name__ and not isinstance(plain, BaseModule)
    before, after = plain.state_dict(), registered.state_dict()
    registered.init_weights()  # without init_cfg, it changes no weight
    assert list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize('origin', CHECKPOINTS)
def test_init_cfg_loads_every_origin(origin, tmp_path):
    backbone = PiT('ti', init_cfg=save_pretrained(CHECKPOINTS[origin](), tmp_path / 'w.pth'))
    backbone.init_weights()
    state = backbone.state_dict()
    for name in state:
        if not name.startswith('norm'):
            assert torch.equal(state[name], OFFICIAL[name]), name


def test_init_cfg_skips_empty_entries_and_refuses_a_file_without_tensors(tmp_path):
    for checkpoint in ({'state_dict_ema': {}, 'state_dict': OFFICIAL}, {'model_ema': {}, 'model': OFFICIAL}):
        backbone = PiT('ti', init_cfg=save_pretrained(checkpoint, tmp_path / 'w.pth'))
        backbone.init_weights()
        assert torch.equal(backbone.pos_embed, OFFICIAL['pos_embed'])
    for checkpoint in ({}, {'state_dict': {}}, {'state_dict': {'step': 3}}):
        with pytest.raises(ValueError, match='no tensors'):
            PiT('ti', init_cfg=save_pretrained(checkpoint, tmp_path / 'w.pth')).init_weights()


@pytest.mark.parametrize('checkpoint, words', REFUSED)
def test_mmengines_loader_refuses_incomplete_checkpoints(checkpoint, words, tmp_path):
    torch.save(checkpoint, tmp_path / 'w.pth')
    with pytest.raises(ValueError, match=words):
        load_checkpoint(PiT('ti'), str(tmp_path / 'w.pth'))


def test_report_is_logged_by_mmengine(logged):
    PiT('ti', out_norm=False).load_state_dict(OFFICIAL)
    assert logged[-1] == ('PiT backbone: 156 of 156 tensors loaded; '
                          'left in the file: norm.weight, norm.bias, head.weight, head.bias')
