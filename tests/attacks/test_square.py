"""Square: its schedule, its patterns, its moves written out, and that it searches better than chance."""

import math

import numpy as np
import pytest
import torch

from pit_downstream.attacks.objective import LOSSES, ClassifierObjective
from pit_downstream.attacks.square import Square
from pit_downstream.attacks.threat_model import ThreatModel
from pit_downstream.attacks.square_windows import Windows, make_pattern
from pit_downstream.utils.rng import BatchRng
from tests.attacks.toys import batch_of, make_images, predictor, streams

pytestmark = pytest.mark.numeric

EPSILONS = {'Linf': .03, 'L2': .8, 'L1': 12.}


def hunted(attack, batch, width=None, model=None):
    model = model or predictor()
    objective = ClassifierObjective(model, batch, LOSSES['margin'], width=width)
    with torch.no_grad():
        return attack.run_search(objective, batch.images, streams(batch), width=width)


def margins(images, labels):
    return LOSSES['margin'](predictor().logits(images), labels, None)


@pytest.mark.parametrize('query, sixths', [(0, 0), (10, 0), (11, 1), (50, 1), (51, 2), (200, 2), (201, 3), (501, 4),
                                           (1001, 5), (2001, 6), (4000, 6), (4001, 7), (4999, 7)])
def test_squares_shrink_on_time(query, sixths):
    """The paper's section 5, for 10,000 queries; AutoAttack makes half of them and does not rescale."""
    attack = Square(ThreatModel('Linf', .03))
    assert attack._shares[query] == .8 / 2 ** sixths
    side = attack._compute_sizes(torch.zeros(1, 3, 32, 32))[query]
    assert side == max(round(math.sqrt(.8 / 2 ** sixths * 1024)), 1)


def test_rescaled_squares_shrink_sooner():
    assert Square(ThreatModel('Linf', .03), steps=1000, rescaled=True)._shares[999] == .8 / 512


@pytest.mark.parametrize('norm, order', [('L2', 2), ('L1', 1)])
@pytest.mark.parametrize('side', [3, 5, 8])
def test_patterns_are_of_size_one_and_turn(norm, order, side):
    upright, turned = make_pattern(side, norm).double().numpy()
    assert (np.abs(upright) ** order).sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(upright, turned.T)
    assert (upright[:side // 2] > 0).all() and (upright[side // 2:] < 0).all()
    rows, columns = np.abs(upright).max(1), np.abs(upright).max(0)
    assert columns.argmax() == side // 2 and rows.argmax() in (side // 4, side // 2 + (side - side // 2) // 2)


@pytest.mark.parametrize('norm', ['L2', 'L1'])
def test_a_move_written_out_in_numpy(norm):
    """Algorithm 3 of the paper, for one image; its window overlaps the one that it empties."""
    random = np.random.default_rng(0)
    order, epsilon, side = {'L2': 2, 'L1': 1}[norm], 50., 3
    delta = .05 * random.standard_normal((3, 12, 12))
    places = np.array([.3, .5, .4, .35])
    signs = np.array([1., -1., 1.])
    found = Windows(ThreatModel(norm, epsilon))._move(
        torch.tensor(delta[None]), side, torch.tensor(places[None]), torch.tensor(signs[None]), torch.tensor([True]))

    def size(values):
        return (np.abs(values) ** order).sum() ** (1 / order)
    top, left, top2, left2 = (places * (12 - side)).astype(int)
    one, two = np.zeros((2, 12, 12), dtype=bool)
    one[top:top + side, left:left + side] = two[top2:top2 + side, left2:left2 + side] = True
    wanted = delta.copy()
    wanted[:, two] = 0
    for channel in range(3):
        old = delta[channel][one]
        new = signs[channel] * make_pattern(side, norm)[1].numpy().ravel() + old / size(old)
        left_over = (epsilon ** order - size(delta) ** order) / 3
        held = size(delta[channel][one | two])
        share = math.sqrt(left_over + held ** 2) if norm == 'L2' else (left_over + held) * 3
        wanted[channel][one] = new / size(new) * share
    np.testing.assert_allclose(found[0].numpy(), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('norm', EPSILONS)
def test_better_than_as_many_random_perturbations(norm):
    images, labels = make_images(6, seed=8)
    batch, threat = batch_of(images, labels), ThreatModel(norm, EPSILONS[norm] / 3)
    found, _ = hunted(Square(threat, steps=80, run_to_end=True), batch)
    tries = [images + threat.draw(images.shape, BatchRng(number, range(6))) for number in range(81)]
    by_chance = torch.stack([margins(threat.project_images(images, one), labels) for one in tries]).amax(0)
    assert threat.is_within(found - images).all()
    assert (margins(found, labels) > by_chance).all()


@pytest.mark.parametrize('norm', EPSILONS)
def test_prefetched_proposals_change_nothing(norm):
    images, labels = make_images(3, seed=8)
    batch, attack = batch_of(images, labels), Square(ThreatModel(norm, EPSILONS[norm] / 2), steps=60)
    results = [hunted(attack, batch, width) for width in (1, 3, 40)]
    for found, fooled in results[1:]:
        assert torch.equal(found, results[0][0]) and torch.equal(fooled, results[0][1])


def test_query_budget_is_kept():
    class CountingPredictor(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.images = predictor().model, 0

        def forward(self, images):
            self.images += len(images)
            return self.inner(images)
    images, labels = make_images(2, seed=8)
    counted = CountingPredictor().eval()
    hunted(Square(ThreatModel('Linf', .001), steps=50), batch_of(images, labels), 2, predictor(counted))
    assert 2 * 2 + 60 < counted.images <= 2 * (1 + 1 + 50)  # the clean image, the stripes, the queries
