"""Conversion of PiT checkpoints of any origin, its report, and refusals."""

import pytest
import timm
import torch

from pit_downstream.backbones import PiT
from pit_downstream.backbones.weights import PIT, average, strip_prefix
from pit_downstream.utils.checkpoints import extract_parameters
from tests.reference import formula

OFFICIAL = formula.weights(formula.SHAPES['pit_ti'])


def prefixed(prefix, state=None):
    return {prefix + name: value for name, value in (state or OFFICIAL).items()}


def timm_state():
    model = timm.create_model('pit_ti_224')
    model.load_state_dict(timm.models.pit.checkpoint_filter_fn(OFFICIAL, model))
    return model.state_dict()


CHECKPOINTS = {
    'official': lambda: OFFICIAL,
    'timm': timm_state,
    'ddp': lambda: prefixed('module.'),
    'deit': lambda: {'model': OFFICIAL, 'optimizer': {'state': {}}, 'epoch': 3},
    'timm training with ema': lambda: {'state_dict': {k: v + 9 for k, v in OFFICIAL.items()},
                                       'state_dict_ema': OFFICIAL, 'args': 'x'},
    'mmengine classifier': lambda: {'state_dict': prefixed('backbone.'), 'meta': {}},
    'detector': lambda: {'state_dict': {**prefixed('backbone.'), 'bbox_head.fc.weight': torch.ones(2, 2)}},
    'ddp detector': lambda: prefixed('module.backbone.'),
}


@pytest.mark.parametrize('origin', CHECKPOINTS)
def test_every_origin_loads(origin):
    backbone = PiT('ti')
    backbone.load_state_dict(CHECKPOINTS[origin]())
    state = backbone.state_dict()
    for name in state:
        if not name.startswith('norm'):
            assert torch.equal(state[name], OFFICIAL[name]), name


def test_a_backbone_inside_a_detector_loads_its_own_part():
    detector = torch.nn.ModuleDict({'backbone': PiT('ti'), 'head': torch.nn.Linear(2, 2)})
    state = {**prefixed('backbone.'), 'head.weight': torch.ones(2, 2), 'head.bias': torch.zeros(2)}
    detector.load_state_dict(state)
    assert torch.equal(detector['backbone'].cls_token, OFFICIAL['cls_token'])
    assert detector['head'].weight.sum() == 4


def test_own_checkpoint_round_trips_with_its_norms():
    backbone, again = PiT('ti'), PiT('ti')
    torch.nn.init.normal_(backbone.norm1.weight)
    again.load_state_dict(backbone.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(backbone.state_dict().values(), again.state_dict().values()))


def test_shallower_backbone_leaves_the_rest():
    backbone = PiT('ti', out_indices=(0,))
    backbone.load_state_dict(OFFICIAL)
    assert torch.equal(backbone.patch_embed.conv.weight, OFFICIAL['patch_embed.conv.weight'])


def test_distilled_and_plain():
    distilled = formula.weights(formula.SHAPES['pit_ti_distilled'])
    plain = PiT('ti')
    plain.load_state_dict(distilled)
    assert torch.equal(plain.cls_token, distilled['cls_token'][:, :1])
    both = PiT('ti', distilled=True)
    both.load_state_dict(distilled)
    assert torch.equal(both.cls_token, distilled['cls_token'])
    with pytest.raises(ValueError, match='missing: cls_token .1x1x64 in the file, 1x2x64 in the model.'):
        both.load_state_dict(OFFICIAL)


def test_position_embedding_is_resampled():
    backbone = PiT('ti', img_size=384)
    _, report = PIT.convert(OFFICIAL, backbone.state_dict(), optional=[n for n in backbone.state_dict() if 'norm' in n])
    assert report.adapted == ('pos_embed 1x64x27x27 -> 1x64x47x47',)
    backbone.load_state_dict(OFFICIAL)
    flat = dict(OFFICIAL, pos_embed=torch.full((1, 64, 27, 27), 0.5))
    backbone.load_state_dict(flat)
    torch.testing.assert_close(backbone.pos_embed.data, torch.full((1, 64, 47, 47), 0.5))


def test_report_lists_loaded_and_unused_tensors(caplog):
    with caplog.at_level('INFO'):
        PiT('ti', out_norm=False).load_state_dict(OFFICIAL)
    assert caplog.messages[-1] == ('PiT backbone: 156 of 156 tensors loaded; '
                    'left in the file: norm.weight, norm.bias, head.weight, head.bias')


REFUSED = [
    ({}, '(got|has) no tensors'),
    ({'conv1.weight': torch.ones(1)}, 'expected a checkpoint with PiT weights .* got conv1.weight'),
    ({k: v for k, v in OFFICIAL.items() if 'pools.0' not in k},
     'expected all 156 tensors, got 152; missing: pools.0.conv.weight'),
    (formula.weights(formula.SHAPES['pit_xs']), 'missing: .*64.* check that arch and distilled agree'),
]


@pytest.mark.parametrize('checkpoint, words', REFUSED)
def test_incomplete_checkpoints_are_refused(checkpoint, words):
    before = PiT('ti').state_dict()
    for strict in (True, False):
        backbone = PiT('ti')
        backbone.load_state_dict(before)
        with pytest.raises(ValueError, match=words):
            backbone.load_state_dict(checkpoint, strict=strict)
        assert all(torch.equal(a, b) for a, b in zip(before.values(), backbone.state_dict().values()))


def test_output_norms_are_new_and_not_missed():
    own = PiT('ti', out_indices=(2,)).state_dict()
    _, report = PIT.convert(OFFICIAL, own, optional=['norm2.weight', 'norm2.bias'])
    assert report.missing == () and report.new == ('norm2.weight', 'norm2.bias')
    assert str(report).startswith('156 of 156 tensors loaded; new: norm2.weight, norm2.bias; left in the file: norm.w')


def test_unwrap_takes_tensors_only():
    state = extract_parameters({'state_dict': {'a': torch.ones(1), 'step': 3}})
    assert list(state) == ['a']


def test_unwrap_skips_entries_without_tensors():
    good = {'a': torch.ones(1)}
    for other in ({}, {'step': 3}, {'state_dict': {}}):
        assert extract_parameters({'state_dict_ema': other, 'state_dict': good}) == good
        assert extract_parameters({'model_ema': other, 'model': good}) == good
        assert extract_parameters({'model_ema': other, 'meta': 1}) == {}
    with pytest.raises(ValueError, match='got list'):
        extract_parameters([good])


def test_strip_prefix_takes_the_outermost():
    state = {'a.w.x': 1, 'a.b.w.x': 2, 'a.other': 3, 'else': 4}
    assert strip_prefix(state, 'w.x') == {'w.x': 1, 'b.w.x': 2, 'other': 3}
    assert strip_prefix(state, 'nothing') == {}


def test_the_mean_of_checkpoints_by_hand():
    """Of counters, which are whole numbers, the last one's; halves keep their type."""
    states = [{'weight': torch.tensor([1., 4.]), 'half': torch.tensor([value], dtype=torch.float16),
               'count': torch.tensor(count)} for value, count in ((1., 3), (2., 4), (6., 9))]
    states[2]['weight'] = torch.tensor([4., 1.])
    mean = average(states)
    assert mean['weight'].tolist() == [2., 3.] and mean['count'].item() == 9
    assert mean['half'].item() == 3 and mean['half'].dtype == torch.float16


@pytest.mark.parametrize('other', [{'weight': torch.zeros(2)}, {'bias': torch.zeros(1)}])
def test_checkpoints_of_different_models_have_no_mean(other):
    with pytest.raises(ValueError, match='expected checkpoints of one model, got some that differ in weight'):
        average([{'weight': torch.zeros(1)}, other])
