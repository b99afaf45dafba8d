"""tools/export.py: whose backbone it takes; the export itself is tested in backbones/test_compiled.py."""

from pathlib import Path

import pytest
import torch

from pit_downstream.backbones import DeepViT, PiT
from pit_downstream.cli.export import load_backbone, make_parser
from pit_downstream.utils.errors import InputError

ROOT = Path(__file__).parents[2] / 'configs'


def asked(model, weights, *flags):
    parser = make_parser()
    return load_backbone(parser, parser.parse_args(['--model', str(model), '--weights', str(weights),
                                                    *map(str, flags)]))


def test_a_backbone_by_its_name_with_a_classifiers_weights(tmp_path):
    own = PiT('ti', out_indices=(0,))
    torch.save(own.state_dict(), tmp_path / 'weights.pth')
    found = asked('pit_ti(out_indices=(0,))', tmp_path / 'weights.pth', '--output', tmp_path / 'x.onnx')
    assert isinstance(found, PiT) and found.out_indices == (0,)
    assert torch.equal(found.pos_embed, own.pos_embed)
    vit = asked('vit_s(out_indices=(0,), out_strides=(16,))', 'random', '--output', tmp_path / 'x.onnx')
    assert isinstance(vit, DeepViT) and len(vit.blocks) == 1


def test_a_detectors_own(tmp_path):
    found = asked(ROOT / 'retinanet_pit_ti.py', 'random', '--bundled', '--data', tmp_path, '--output',
                  tmp_path / 'x.onnx',
                  '--cfg-options', 'model.backbone.out_indices=(0,)', 'model.neck.in_channels=[64]')
    assert isinstance(found, PiT) and found.out_indices == (0,)


@pytest.mark.parametrize('flags, words', [
    (('pit_ti', 'random', '--opset', '24'), 'expected an opset in 18..23, got 24; 20 is the usual one'),
    (('pit_m', 'random'), "no backbone named 'pit_m'; did you mean pit_"),
    (('pit_ti', 'nowhere.pth'), 'no file with weights: nowhere.pth. Pass a file'),
    (('pit_ti', 'random', '--bundled'), '--bundled applies to the config of a detector'),
    (('pit_ti', 'random', '--cfg-options', 'model.x=1'), '--cfg-options applies to the config of'),
    (('pit_ti(color=1)', 'random'), 'arguments that can be built, got pit_ti'),
    (('pit_ti(out_indices=(7,))', 'random'), 'arguments that can be built, got pit_ti'),
    ((ROOT / 'detr_r50.py', 'random', '--bundled'), 'must be a PiT or a DeepViT, got ResNet'),
    ((ROOT / 'retinanet_pit_ti.py', 'nowhere.pth', '--bundled'), 'expected a checkpoint, found none at nowhere.pth')])
def test_refuses_what_it_cannot_export(flags, words, tmp_path):
    with pytest.raises(InputError, match=words):
        data = ('--data', tmp_path) if '--bundled' in flags and str(flags[0]).endswith('.py') else ()
        asked(*flags, *data, '--output', tmp_path / 'x.onnx')
