"""FAB where the distance to the boundary is known."""

import pytest
import torch

from pit_downstream.attacks.fab import FAB, TargetedFAB
from pit_downstream.attacks.search_state import ActiveSamples
from pit_downstream.attacks.threat_model import ThreatModel
from tests.attacks.toys import Linear, attacked, batch_of, fooled, make_images, predictor, streams

pytestmark = pytest.mark.numeric

DUAL = {'Linf': 1, 'L2': 2, 'L1': float('inf')}
WIDE = {'Linf': 1., 'L2': 50., 'L1': 500.}


@pytest.mark.parametrize('kind', [FAB, TargetedFAB])
@pytest.mark.parametrize('norm', DUAL)
def test_finds_the_distance_to_a_plane(kind, norm):
    model = predictor(Linear())
    images = make_images(6, seed=5)[0] * .2 + .4  # the nearest point of the plane is inside the box
    score = model.logits(images)[:, 1]
    weights = model.model.weight.detach()
    distance = score.abs() / torch.linalg.vector_norm(weights, ord=DUAL[norm])
    if norm == 'L1':  # one value alone would have to move: near enough for it
        images = images - ((score * (1 - .2 / distance.clamp_min(.2)))[:, None] * weights / (weights @ weights)
                           ).float().view_as(images)
        score = model.logits(images)[:, 1]
        distance = score.abs() / weights.abs().max()
    batch = batch_of(images, (score > 0).long())
    found = attacked(kind(ThreatModel(norm, WIDE[norm]), steps=30, run_to_end=True), model, batch)
    assert fooled(model, found, batch).all()
    size = ThreatModel(norm, 1.).get_size(found - images)
    assert (size <= 1.01 * distance).all() and (size >= .999 * distance).all()


@pytest.mark.parametrize('share, wanted', [(.98, 0), (1.02, 4)])
def test_a_radius_decides_what_is_found(share, wanted):
    model = predictor(Linear())
    images = make_images(4, seed=5)[0] * .2 + .4
    weights = model.model.weight.detach()
    steps = (30 - model.logits(images)[:, 1])[:, None] * weights / (weights @ weights)
    images = images + steps.float().view_as(images)
    batch = batch_of(images, torch.ones(4))
    threat = ThreatModel('Linf', float(share * 30 / weights.abs().sum()))
    assert fooled(model, attacked(FAB(threat, steps=30), model, batch), batch).sum() == wanted


def test_untargeted_goes_to_the_nearest_of_several_classes():
    """No target beats it by more than the paths differ."""
    images, labels = make_images(8, seed=3)
    batch, threat = batch_of(images, labels), ThreatModel('L2', 5.)
    plain, targeted = (threat.get_size(attacked(kind(threat, steps=25, run_to_end=True), predictor(), batch) - images)
                       for kind in (FAB, TargetedFAB))
    assert ((plain - targeted).abs() <= .1 * targeted).float().mean() >= .75


@pytest.mark.parametrize('norm', DUAL)
def test_restarts_begin_half_of_epsilon_away(norm):
    images, labels = make_images(3, seed=3)
    threat, batch = ThreatModel(norm, .02), batch_of(images * .2 + .4, labels)
    own = streams(batch).rows(range(3), [0] * 3, 'FAB', 'cpu')
    samples = ActiveSamples(row=torch.arange(3), variant=torch.arange(3), clean=batch.images)
    start = FAB(threat, restarts=3)._draw_start(samples, own)
    torch.testing.assert_close(threat.get_size(start - batch.images), torch.tensor([0, .01, .01]), rtol=1e-3, atol=0)
