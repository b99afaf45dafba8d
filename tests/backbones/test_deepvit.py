"""DeepViT against the official code's outputs, its formula, and timm's ViTs where there is no Re-attention."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import pit_downstream.backbones as backbones
from pit_downstream.backbones.deepvit import ARCHS
from pit_downstream.backbones.deepvit import DeepVitClassifier
from tests.reference import formula
from tests.tolerances import assert_near

PARAMETERS = {  # counted from the official definitions, FACTS.md 2.2
    'deepvit_16': 24_426_664, 'deepvit_24': 36_261_448, 'deepvit_32': 48_096_232, 'deepvit_s': 27_312_632,
    'deepvit_l': 58_883_708, 'deepvit_l_384': 59_043_308}
OFFICIAL = {  # dvit_repo, models/deep_vision_transformer.py
    'deepvit_16': 'deepvit_patch16_224_re_attn_16b', 'deepvit_24': 'deepvit_patch16_224_re_attn_24b',
    'deepvit_32': 'deepvit_patch16_224_re_attn_32b', 'deepvit_s': 'deepvit_S', 'deepvit_l': 'deepvit_L',
    'deepvit_l_384': 'deepvit_L_384'}
VITS = {'vit_16': dict(depth=16, num_heads=12, mlp_ratio=3), 'vit_24': dict(depth=24, num_heads=12, mlp_ratio=3),
        'vit_32': dict(depth=32, num_heads=12, mlp_ratio=3), 'vit_s': dict(depth=12, num_heads=6)}


def built(name):
    model = timm.create_model(name).eval()
    model.load_state_dict(formula.weights(formula.SHAPES[name]))
    return model


def small(**kwargs):
    """Two plain and two Re-attention blocks with a convolutional stem."""
    torch.manual_seed(0)
    arch = backbones.vit.VitArch(24, 3, 4, plain=2, conv_stem=True, adjust=0.5, img_size=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHS, 'small', arch)
        return DeepVitClassifier('small', num_classes=5, **kwargs)


def tokens_to_map(block, tokens):
    """The map that multiplies the values, (B, H, N, N), as the official code computes it."""
    attn = block.attn
    normed = block.norm1(tokens * getattr(block, 'adjust', 1))
    q, k, _ = attn.qkv(normed).unflatten(2, (3, attn.heads, -1)).permute(2, 0, 3, 1, 4)
    attention = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
    if hasattr(attn, 'var_norm'):
        return attn.var_norm(attn.reatten_matrix(attention)) * attn.reatten_scale
    return attention


def official_forward(model, images):
    """Logits by the formula of the official code, with every map in memory."""
    tokens, _ = model.embed(images)
    for block in model.blocks:
        adjust = model.arch.adjust
        qkv = block.attn.qkv(block.norm1(tokens * adjust)).unflatten(2, (3, block.attn.heads, -1))
        mixed = tokens_to_map(block, tokens) @ qkv[:, :, 2].transpose(1, 2)
        tokens = tokens + block.attn.proj(mixed.transpose(1, 2).flatten(2)) / adjust
        tokens = tokens + block.mlp(block.norm2(tokens * adjust)) / adjust
    return model.head(model.norm(tokens)[:, 0])


@pytest.mark.numeric
@pytest.mark.parametrize('name', PARAMETERS)
@torch.no_grad()
def test_names_shapes_count_and_logits_are_official(name):
    model = built(name)  # strict
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == formula.SHAPES[name]
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    model, images = model.double(), formula.images(112)[:1].double()  # the formula holds at any size
    assert_near(model(images), official_forward(model, images), 'network')


@pytest.mark.numeric
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize('name', ['deepvit_16', 'deepvit_s'])
@torch.no_grad()
def test_equals_official_outputs(name, dtype):
    """Which were computed in float32: as far as that goes, in float64 on every CPU alike."""
    model, images, expected = built(name).to(dtype), formula.images().to(dtype), formula.expected(name)
    assert_near(model(images), expected['logits'], 'network', dtype=torch.float32)
    inputs = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda block, args: inputs.append(args[0]))
    outputs, size = model.run_blocks(images, keep=(0, 7, 15))
    assert size == (14, 14)
    for i, tokens in zip((0, 7, 15), outputs):
        assert_near(tokens[0, :8], expected[f'block{i}_tokens'], 'network', dtype=torch.float32)
        attention = tokens_to_map(model.blocks[i], inputs[i])
        assert_near(attention[0, :, :4, :32], expected[f'block{i}_attn'], 'network', dtype=torch.float32)


@pytest.mark.parametrize('short, official', OFFICIAL.items())
def test_registered_under_both_names(short, official):
    assert getattr(backbones, official) is timm.models.model_entrypoint(official)
    assert getattr(backbones, short) is timm.models.model_entrypoint(short)
    ours, theirs = (timm.create_model(name, num_classes=0).to('meta').state_dict() for name in (short, official))
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.numeric
@pytest.mark.parametrize('name', VITS)
@torch.no_grad()
def test_plain_vits_are_timms(name):
    model = timm.create_model(name).eval().double()
    twin = timm.models.VisionTransformer(embed_dim=384, **VITS[name]).eval().double()
    twin.load_state_dict(model.state_dict())
    images = formula.images()[:1].double()
    assert_near(model(images), twin(images), 'network')
    assert getattr(backbones, name) is timm.models.model_entrypoint(name)


def test_vit_s_takes_deit_small_weights():
    timm.create_model('vit_s').load_state_dict(timm.create_model('deit_small_patch16_224').state_dict())


def test_data_configs():
    for name in (*OFFICIAL, *OFFICIAL.values(), 'vit_16'):
        config = timm.data.resolve_data_config(timm.get_pretrained_cfg(name).to_dict())
        assert config['mean'] == config['std'] == (0.5, 0.5, 0.5), name
        assert config['crop_pct'] == 0.9 and config['interpolation'] == 'bicubic'
        assert config['input_size'] == (3, *[384 if name.endswith('384') else 224] * 2)
    config = timm.data.resolve_data_config(timm.get_pretrained_cfg('vit_s').to_dict())
    assert config['mean'] == (0.485, 0.456, 0.406) and config['std'] == (0.229, 0.224, 0.225)


@pytest.mark.parametrize('height, width, size', [
    (224, 224, (14, 14)), (97, 160, (7, 10)), (16, 33, (1, 3)), (5, 7, (1, 1))])
@torch.no_grad()
def test_any_size(height, width, size):
    model = small().eval()
    outputs, grid = model.run_blocks(torch.randn(2, 3, height, width), keep=(1, 3))
    assert grid == size
    assert [tuple(tokens.shape) for tokens in outputs] == [(2, 1 + size[0] * size[1], 24)] * 2
    assert model(torch.randn(2, 3, height, width)).shape == (2, 5)


@pytest.mark.parametrize('name', ['deepvit_16', 'deepvit_s'])
@torch.no_grad()
def test_sides_are_filled_up_with_zeros(name):
    model = timm.create_model(name).eval()
    images = torch.randn(1, 3, 40, 56)
    assert torch.equal(model.patch_embed(images), model.patch_embed(F.pad(images, (0, 8, 0, 8))))


@torch.no_grad()
def test_position_embedding_is_resampled_without_the_class_tokens():
    model = small().eval()
    plain = model.embed(images := torch.randn(1, 3, 96, 160))[0] - model.pos_embed.mean()
    nn.init.constant_(model.pos_embed[:, 1:], 0.5), nn.init.constant_(model.pos_embed[:, :1], 9.0)
    moved = model.train().eval().embed(images)[0]
    nn.init.zeros_(model.pos_embed)
    bare = model.train().eval().embed(images)[0]
    assert plain.shape == moved.shape == (1, 61, 24)
    torch.testing.assert_close(moved[:, 1:], bare[:, 1:] + 0.5)
    torch.testing.assert_close(moved[:, :1], bare[:, :1] + 9)


@torch.no_grad()
def test_resampled_embedding_is_cached_in_evaluation_only_while_nothing_changes():
    model, images = small().eval(), torch.randn(1, 3, 96, 64)
    before = model(images)
    assert len(model._grids) == 1 and torch.equal(model(images), before) and len(model._grids) == 1
    model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()})
    assert len(model._grids) == 0 and not torch.equal(model(images), before)
    model.train()
    assert len(model._grids) == 0


@pytest.mark.parametrize('side', [64, 96])
def test_every_parameter_has_a_gradient(side):
    model = small(drop_path_rate=0.1).train()
    model(torch.randn(2, 3, side, side)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert model.pos_embed.grad.abs().sum() > 0


@pytest.mark.numeric
def test_checkpointing_changes_nothing_but_memory():
    images = torch.randn(2, 3, 64, 64)
    plain, recomputed = (small(drop_path_rate=0.2, attn_drop_rate=0.1, with_cp=with_cp) for with_cp in (False, True))
    for model in (plain, recomputed):
        torch.manual_seed(1)  # the same paths and attention entries are dropped in both
        model.train()(images).sin().sum().backward()
    for p, q in zip(plain.parameters(), recomputed.parameters()):
        assert_near(p.grad, q.grad, 'gradient')
    for p, q in zip(plain.buffers(), recomputed.buffers()):
        torch.testing.assert_close(p, q)


def test_classifier_takes_new_heads():
    model = small()
    model.reset_classifier(0)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 24)
    assert model.forward_head(torch.randn(2, 17, 24), pre_logits=True).shape == (2, 24)


def test_drop_path_rises_from_none_to_the_rate():
    """torch.linspace(0, rate, depth), as in timm and the official code."""
    rates = [block.drop_path.drop_prob for block in small(drop_path_rate=0.3).blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])


def test_initial_weights_are_normal_with_deviation_002():
    model = timm.create_model('deepvit_16')
    for weight in (model.blocks[3].attn.qkv.weight, model.blocks[9].mlp.fc1.weight, model.pos_embed, model.head.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert model.blocks[3].attn.qkv.bias.abs().sum() == 0


@torch.no_grad()
def test_consistent_mode_is_the_same_at_the_training_size():
    model, twin = small().eval(), small(consistent=True).eval()
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(model(images), twin(images))
    assert not torch.equal(model(images := torch.randn(1, 3, 128, 128)), twin(images))


@torch.no_grad()
def test_features_keep_their_size_from_224_to_800_pixels_in_consistent_mode_only():
    """One image at three sizes through four blocks whose norms' statistics are those of 224 pixels."""
    def rms(consistent):
        torch.manual_seed(0)
        model = DeepVitClassifier('16', depth=4, consistent=consistent).train()
        picture = F.interpolate(torch.randn(1, 3, 14, 14), 800, mode='bicubic')
        for block in model.blocks:
            block.attn.var_norm.momentum = 1.0
            nn.init.normal_(block.attn.qkv.weight, std=0.1)
        model(F.interpolate(picture, 224, mode='area'))
        model.eval()
        features = (model.run_blocks(F.interpolate(picture, side, mode='area'), keep=(3,))[0][0]
                    for side in (224, 448, 800))
        return [one.square().mean().sqrt().item() for one in features]
    kept, plain = rms(True), rms(False)
    assert kept[0] == pytest.approx(plain[0])
    assert max(kept) / min(kept) < 2 < max(plain) / min(plain)


@pytest.mark.parametrize('kwargs, words', [
    ({'arch': 'xl'}, "arch is one of 16, 24, 32, s, .* got 'xl'"),
    ({'arch': '16', 'global_pool': 'avg'}, "global_pool is 'token', got 'avg'"),
])
def test_bad_arguments_get_one_sentence(kwargs, words):
    with pytest.raises(ValueError, match=words):
        DeepVitClassifier(**kwargs)
