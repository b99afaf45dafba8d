"""DeepViT as a detection backbone: its maps are the classifier's tokens, at every size alike, from any checkpoint."""

import pytest
import timm
import torch
import torch.nn.functional as F

from pit_downstream.backbones import DeepViT
from tests.reference import formula
from tests.tolerances import assert_near

OFFICIAL = formula.weights(formula.SHAPES['deepvit_16'])


@pytest.mark.numeric
@torch.no_grad()
def test_maps_are_the_classifiers_tokens():
    """At the native size the consistent Re-attention is the paper's."""
    model = timm.create_model('deepvit_16').eval()
    model.load_state_dict(OFFICIAL)
    backbone = DeepViT('16', out_indices=(3, 15), out_strides=(16, 32), out_norm=False).eval()
    backbone.load_state_dict(OFFICIAL)
    model, backbone, images = model.double(), backbone.double(), formula.images().double()
    tokens, size = model.run_blocks(images, keep=(3, 15))
    grids = [one[:, 1:].transpose(1, 2).unflatten(2, size) for one in tokens]
    ours = backbone(images)
    assert_near(ours[0], grids[0], 'network')
    assert_near(ours[1], F.max_pool2d(grids[1], 2), 'network')


@pytest.mark.numeric
@torch.no_grad()
def test_vit_s_equals_timms_deit():
    twin = timm.create_model('deit_small_patch16_224').eval()
    backbone = DeepViT('vit_s', out_indices=(5,), out_strides=(16,), out_norm=False).eval()
    backbone.load_state_dict(twin.state_dict())
    twin, backbone, images = twin.double(), backbone.double(), formula.images().double()
    theirs = twin.forward_intermediates(images, indices=[5], intermediates_only=True)[0]
    assert_near(backbone(images)[0], theirs, 'network')


def rms_by_side(consistent):
    """Root mean square of the features of one image at several sizes, the statistics being those of 224 px."""
    torch.manual_seed(0)
    backbone = DeepViT('16', out_indices=(3,), out_strides=(16,), out_norm=False, consistent=consistent)
    backbone.load_state_dict(OFFICIAL)
    for block in backbone.blocks:
        block.attn.var_norm.momentum = 1.0  # the running statistics become this batch's
    picture = torch.randn(1, 3, 28, 28)
    sized = {side: F.interpolate(picture, size=(side, side), mode='bicubic') for side in (224, 448, 800)}
    with torch.no_grad():
        backbone.train()(sized[224])
        backbone.eval()
        return [backbone(images)[0].square().mean().sqrt().item() for images in sized.values()]


def test_features_keep_their_size_at_every_resolution():
    rms = rms_by_side(consistent=True)
    assert max(rms) < 2 * min(rms), rms


def test_features_do_not_without_the_rescaling():
    rms = rms_by_side(consistent=False)
    assert max(rms) > 2 * min(rms), rms
    assert rms[0] == pytest.approx(rms_by_side(consistent=True)[0], rel=1e-5)  # the same at the native size


CHECKPOINTS = {
    'official': lambda: OFFICIAL,
    'ddp': lambda: {f'module.{name}': value for name, value in OFFICIAL.items()},
    'ema': lambda: {'state_dict': {k: v + 9 for k, v in OFFICIAL.items()}, 'state_dict_ema': OFFICIAL},
    'detector': lambda: {'state_dict': {**{f'backbone.{name}': value for name, value in OFFICIAL.items()},
                                        'bbox_head.fc.weight': torch.ones(2, 2)}},
}


@pytest.mark.parametrize('origin', CHECKPOINTS)
def test_every_origin_loads(origin, caplog):
    backbone = DeepViT('16', out_indices=(0, 1, 2), out_strides=(8, 16, 32))
    with caplog.at_level('INFO'):
        backbone.load_state_dict(CHECKPOINTS[origin]())
    state = backbone.state_dict()
    taken = [name for name in state if name in OFFICIAL and name != 'norm.weight']
    assert len(taken) == 4 + 3 * 19 and all(torch.equal(state[name], OFFICIAL[name]) for name in taken)
    assert caplog.messages[-1].startswith('DeepViT backbone: 61 of 61 tensors loaded; new: norm0.weight')


def test_own_checkpoint_round_trips_with_norms_and_pyramid():
    backbone, again = (DeepViT('16', pyramid='simple', out_indices=(0,)) for _ in range(2))
    torch.nn.init.normal_(backbone.norm0.weight)
    again.load_state_dict(backbone.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(backbone.state_dict().values(), again.state_dict().values()))


def test_position_embedding_is_resampled_and_its_class_token_kept():
    backbone = DeepViT('16', out_indices=(0,), out_strides=(16,), img_size=384)
    flat = torch.full((1, 197, 384), 0.5)
    flat[:, 0] = 3
    backbone.load_state_dict(dict(OFFICIAL, pos_embed=flat))
    assert (backbone.pos_embed[:, 0] == 3).all()
    torch.testing.assert_close(backbone.pos_embed.data[:, 1:], torch.full((1, 576, 384), 0.5))


@pytest.mark.parametrize('checkpoint, words', [
    ({'conv1.weight': torch.ones(1)}, 'expected a checkpoint with DeepViT or ViT weights .* got conv1.weight'),
    ({k: v for k, v in OFFICIAL.items() if 'blocks.0.attn' not in k}, 'missing: blocks.0.attn.qkv.weight'),
    (dict(OFFICIAL, pos_embed=torch.zeros(1, 198, 384)), r'missing: pos_embed \(1x198x384 in the file, 1x197x384'),
    (formula.weights(formula.SHAPES['deepvit_s']), 'missing: .*396.* check that arch agrees'),
    (formula.weights(formula.SHAPES['deepvit_24']), 'got also blocks.16.norm1.weight.* check that arch agrees'),
])
def test_what_does_not_fit_is_refused(checkpoint, words):
    with pytest.raises(ValueError, match=words):
        DeepViT('16', out_indices=(0,), out_strides=(16,)).load_state_dict(checkpoint, strict=False)


def test_a_plain_twin_does_not_take_half_of_a_deepvit():
    with pytest.raises(ValueError, match='got also blocks.0.attn.reatten_matrix.weight'):
        DeepViT('vit_16', out_indices=(0,), out_strides=(16,)).load_state_dict(OFFICIAL)


def test_statistics_hold_for_the_training_size():
    assert DeepViT('16', out_indices=(0,), out_strides=(16,)).blocks[0].attn.base_tokens == 197
    assert DeepViT('16', out_indices=(0,), out_strides=(16,), img_size=384).blocks[0].attn.base_tokens == 577
