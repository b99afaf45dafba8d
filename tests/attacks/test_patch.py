"""Patches: where they are put, that they fool, and that Patch-Fool's draws attention."""

from math import ceil, floor

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from pit_downstream.attacks.patch import Patch, PatchFool, remove_conflict
from pit_downstream.attacks.threat_model import Patches
from pit_downstream.attention.trace import trace_attention
from pit_downstream.evaluation.models import build_classifier
from tests.attacks.toys import SIDE, Linear, attacked, batch_of, fooled, make_images, predictor, streams

pytestmark = pytest.mark.numeric

CELL = Patches(count=1, side=4)  # one of 3 x 3


@pytest.fixture(scope='module')
def transformer():
    """An untrained ViT on 3 x 3 patches, in six blocks, whose attention is far from even."""
    torch.manual_seed(2)
    model = VisionTransformer(img_size=SIDE, patch_size=4, num_classes=4, embed_dim=16, depth=6, num_heads=2)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight *= 60
    return predictor(model.eval())


@pytest.fixture(scope='module')
def batch(transformer):
    """Images with the labels that the untrained model gives them."""
    images = make_images(8, seed=19)[0]
    with torch.no_grad():
        return batch_of(images, transformer.logits(images).argmax(1))


def changed(found, batch):
    return CELL.sum_cells((found - batch.images).abs()) > 0


@pytest.mark.parametrize('place, wanted', [('corner', (0, 0)), ('center', (1, 1))])
def test_fixed_places(place, wanted):
    batch = batch_of(*make_images(4))
    cells = changed(attacked(Patch(CELL, steps=2, place=place, run_to_end=True), predictor(), batch), batch)
    assert cells.flatten(1).sum(1).eq(1).all() and cells[:, wanted[0], wanted[1]].all()


def test_the_salient_cell_of_a_linear_model_is_that_of_its_largest_weights():
    line = predictor(Linear())
    images = make_images(3, seed=5)[0]
    batch = batch_of(images, line.logits(images).argmax(1))
    found = attacked(Patch(CELL, steps=1, place='salient', run_to_end=True), line, batch)
    best = CELL.sum_cells(line.model.weight.detach().abs().view(1, 3, SIDE, SIDE)).flatten().argmax()
    assert changed(found, batch).flatten(1).int().argmax(1).tolist() == [best] * 3


def test_random_places_belong_to_the_image():
    batch = batch_of(*make_images(24))
    attack = Patch(CELL, steps=1, place='random', run_to_end=True)
    cells = changed(attacked(attack, predictor(), batch), batch).flatten(1).int().argmax(1)
    assert len(set(cells.tolist())) > 4
    assert torch.equal(changed(attacked(attack, predictor(), batch.part([7, 3])), batch.part([7, 3])
                               ).flatten(1).int().argmax(1), cells[[7, 3]])


def test_a_linear_model_gets_the_worst_pixels():
    """Every pixel of the patch ends black or white, as its weight wants it."""
    line = predictor(Linear())
    images = make_images(2, seed=5)[0]
    batch = batch_of(images, line.logits(images).argmax(1))
    attack = Patch(CELL, steps=60, rate=.1, place='center', loss='margin', run_to_end=True)
    found = attacked(attack, line, batch)[..., 4:8, 4:8]
    weight = line.model.weight.view(3, SIDE, SIDE)[:, 4:8, 4:8]
    towards = (1 - 2 * line.labels(batch)).view(-1, 1, 1, 1)  # label 0 falls by a larger score
    torch.testing.assert_close(found, ((towards * weight) > 0).float(), rtol=0, atol=.02)


def test_the_place_of_attention_is_the_patch_that_gets_most(transformer, batch):
    attack = PatchFool(CELL, steps=1, layer=2, run_to_end=True)
    cells = changed(attacked(attack, transformer, batch), batch).flatten(1)
    with torch.no_grad(), trace_attention(transformer.model) as trace:
        transformer.logits(batch.images)
    received = trace.maps['softmax']['block3'].mean((1, 2))[:, 1:]  # the third block; the first token is the class
    assert torch.equal(cells.int().argmax(1), received.argmax(1)) and len(set(received.argmax(1).tolist())) > 1


def test_the_pull_is_the_gradient_of_attention(transformer, batch):
    """Against differences of the log of the attention that the first cell gets in blocks 2 and 3 of 6."""
    mask = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.bool)
    mask[..., :4, :4] = True
    image = batch.images[:1].double()
    twin = predictor(transformer.model.double())
    twin._mean, twin._std = twin._mean.double(), twin._std.double()

    def attention(images):
        with torch.no_grad(), trace_attention(twin.model) as trace:
            twin.model(images)
        return sum(trace.maps['softmax'][place].mean(1)[0, :, 1].log().mean() for place in ('block2', 'block3'))

    try:
        pull = PatchFool(CELL)._compute_attention_gradient(twin, image, mask)
        for place in ((0, 0, 1, 2), (0, 2, 3, 3), (0, 1, 7, 9)):
            step = torch.zeros_like(image)
            step[place] = 1e-6
            slope = (attention(image + step) - attention(image - step)) / 2e-6
            torch.testing.assert_close(pull[place], slope, rtol=1e-4, atol=1e-7)
    finally:
        transformer.model.float()


def test_more_weight_draws_more_attention(transformer, batch):
    def drawn(weight):
        attack = PatchFool(CELL, steps=15, place='center', attention=weight, run_to_end=True)
        found = attacked(attack, transformer, batch)
        with torch.no_grad(), trace_attention(transformer.model) as trace:
            transformer.logits(found)
        return trace.maps['softmax']['block2'].mean((0, 1, 2))[5].item()
    assert drawn(100.) > drawn(0.) * 1.1


def test_conflicts_are_taken_out():
    slope = torch.tensor([[3., 0.], [3., 0.], [0., 0.]])
    pull = torch.tensor([[-2., 5.], [2., 5.], [1., 1.]])
    assert remove_conflict(pull, slope).tolist() == [[0., 5.], [2., 5.], [1., 1.]]


def test_patches_fool_a_transformer_more_than_random_ones(transformer, batch):
    from pit_downstream.attacks.noise_baseline import Noise
    noise = fooled(transformer, attacked(Noise(CELL), transformer, batch), batch).sum()
    for attack in (Patch(CELL, steps=30), PatchFool(CELL, steps=30, layer=2)):
        assert fooled(transformer, attacked(attack, transformer, batch), batch).sum() > noise


def test_patch_fool_on_a_pit():
    """Its fifth block has 2 x 2 tokens in every cell; tokens of a PiT lie behind one class token."""
    pit = build_classifier('pit_ti(img_size=64, num_classes=4)', weights='random')
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(6))
    with torch.no_grad(), pit.tracing() as trace:
        one = batch_of(image, pit.logits(image).argmax(1))
    place, attention = list(trace.maps['softmax'].items())[4]
    received = attention.mean((1, 2))[0, 1:].view(trace.grids[place]).double().numpy()
    share = len(received) / 4  # tokens along a cell's side
    cells = Patches(side=16)
    wanted = max(((row, column) for row in range(4) for column in range(4)), key=lambda at: received[
        floor(at[0] * share):ceil((at[0] + 1) * share), floor(at[1] * share):ceil((at[1] + 1) * share)].mean())
    found = attacked(PatchFool(cells, steps=2, run_to_end=True), pit, one)
    assert cells.sum_cells((found - image).abs())[0].nonzero().tolist() == [list(wanted)]
    assert torch.equal(found, attacked(PatchFool(cells, steps=2, run_to_end=True), pit, one))
    without = attacked(PatchFool(cells, steps=2, attention=0, run_to_end=True), pit, one)
    assert not torch.equal(found, without)  # attention changes the result


def test_wrong_arguments_get_one_sentence(transformer, batch):
    with pytest.raises(ValueError, match="place is one of salient, random, center, corner, got 'attention'"):
        Patch(CELL, place='attention')
    with pytest.raises(ValueError, match=r'layer is 0..5 in this model, got 6'):
        attacked(PatchFool(CELL, layer=6), transformer, batch)
    with pytest.raises(ValueError, match='expected PiT, DeepViT or'):
        attacked(PatchFool(CELL), predictor(), batch)
    with pytest.raises(ValueError, match='rate is above 0, got 0'):
        Patch(CELL, rate=0)

    class Blind:
        name = 'blind'
    with pytest.raises(ValueError, match='expected a classifier that can be traced, got blind; take patch'):
        PatchFool(CELL)(Blind(), batch, streams(batch))
