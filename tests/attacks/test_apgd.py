"""APGD against the paper's algorithm written out for one image, and where the best attack is known."""

import numpy as np
import pytest
import torch

from pit_downstream.attacks.apgd import APGD, TargetedAPGD
from pit_downstream.attacks.losses import cross_entropy, dlr
from pit_downstream.attacks.objective import ClassifierObjective
from pit_downstream.attacks.step_schedule import SparseSchedule, compute_checkpoints
from pit_downstream.attacks.threat_model import ThreatModel
from tests.attacks.toys import Linear, attacked, batch_of, fooled, make_images, predictor, streams

pytestmark = pytest.mark.numeric

BALL = ThreatModel('Linf', .03)


def test_checkpoints_of_a_hundred_steps():
    """Croce & Hein 2020, section 3.2: p_0 = 0, p_1 = .22, p_(j+1) = p_j + max(p_j - p_(j-1) - .03, .06)."""
    places = [0, 22]
    while places[-1] <= 100:
        places.append(places[-1] + max(places[-1] - places[-2] - 3, 6))
    periods = compute_checkpoints(100)
    assert (periods.nonzero().flatten() + 1).tolist() == places[1:-1]
    assert periods[periods > 0].tolist() == np.diff(places[:-1]).tolist()


def written_out(model, image, label, start, steps, loss):
    """Algorithm 1 of the paper for one image, with the conditions of section 3.2; losses of a whole run in a list."""
    def look(at):
        at = at.clone().requires_grad_()
        with torch.enable_grad():
            value = loss(model.logits(at[None]), label[None])[0]
        return value.item(), torch.autograd.grad(value, at)[0].sign()

    def inside(at):
        return torch.minimum(torch.maximum(at, image - BALL.epsilon), image + BALL.epsilon).clamp(0, 1)
    at, size, losses = start, 2 * BALL.epsilon, []
    value, slope = look(at)
    best, best_value, best_slope, old = at, value, slope, at
    due, period, since = max(int(.22 * steps), 1), max(int(.22 * steps), 1), 0
    value_then, halved = best_value, True
    for step in range(steps):
        there = inside(at + size * slope)
        share = .75 if step else 1
        at, old = inside(at + share * (there - at) + (1 - share) * (at - old)), at
        value, slope = look(at)
        losses.append(value)
        if value > best_value:
            best, best_value, best_slope = at, value, slope
        if step + 1 == due:
            before = [losses[since - 1] if since else 0, *losses[since:-1]]
            rises = sum(now > then for now, then in zip(losses[since:], before, strict=True))
            halved = rises <= .75 * period or (not halved and best_value <= value_then)
            if halved:
                size, at, slope = size / 2, best, best_slope
            value_then, since = best_value, step + 1
            period = max(period - max(int(.03 * steps), 1), max(int(.06 * steps), 1))
            due += period
    return best, best_value


@pytest.mark.parametrize('name, loss', [('ce', cross_entropy), ('dlr', dlr)])
def test_rows_of_different_ages_as_one_image_written_out(name, loss):
    """Five images, two restarts each, three places: rows begin at different times."""
    images, labels = make_images(5, seed=2)
    batch, model, steps = batch_of(images, labels), predictor(), 40
    attack = APGD(BALL, steps=steps, loss=name, restarts=2, run_to_end=True)
    objective = ClassifierObjective(model, batch, loss, width=3)
    with torch.no_grad():
        found, _ = attack.run_search(objective, images, streams(batch), width=3)
    for row in range(5):
        results = []
        for restart in range(2):
            own = streams(batch).rows([row], [restart], 'APGD', 'cpu')
            noise = 2 * own.uniform((1, *images.shape[1:]))[0] - 1
            start = (images[row] + BALL.epsilon * noise / noise.abs().max()).clamp(0, 1)
            results.append(written_out(model, images[row], labels[row], start, steps, loss))
        best, value = max(results, key=lambda result: result[1])
        assert loss(model.logits(found[row:row + 1]), labels[row:row + 1]).item() == pytest.approx(value, rel=1e-4)
        torch.testing.assert_close(found[row], best, rtol=0, atol=1e-5)


@pytest.mark.parametrize('norm, epsilon', [('Linf', .02), ('L2', .3), ('L1', .2)])
def test_a_linear_model_is_attacked_as_well_as_can_be(norm, epsilon):
    """The score falls by epsilon times the dual norm of the weights, where the box is far enough."""
    model = predictor(Linear())
    images = make_images(4, seed=5)[0] * .2 + .4
    labels = torch.ones(4, dtype=torch.long)
    found = attacked(APGD(ThreatModel(norm, epsilon), loss='margin', run_to_end=True), model, batch_of(images, labels))
    fall = (model.logits(images) - model.logits(found))[:, 1]
    dual = torch.linalg.vector_norm(model.model.weight.detach(), ord={'Linf': 1, 'L2': 2, 'L1': float('inf')}[norm])
    assert (fall >= .99 * epsilon * dual).all() and (fall <= 1.001 * epsilon * dual).all()


def test_three_radii_under_l1():
    schedule = SparseSchedule(ThreatModel('L1', 2.), 100, .75)
    radii = [round(radius) for radius in schedule._radius.tolist()]
    assert radii == [6] * 30 + [4] * 31 + [2] * 41  # the second and third phase begin with a move of their own
    assert schedule.counts_as_success(torch.tensor([61, 62, 102]), torch.device('cpu')).tolist() == [False, True, True]


@pytest.mark.parametrize('classes', [2, 3, 4])
def test_no_more_targets_than_other_classes(classes):
    images, labels = make_images(4, classes, seed=3)
    batch, asked = batch_of(images, labels), []

    class Watched(ClassifierObjective):
        def evaluate(self, images, rows, *, goals=None, gradient=True):
            asked.extend(zip(rows.tolist(), goals.tolist(), strict=True))
            return super().evaluate(images, rows, goals=goals, gradient=gradient)
    attack, objective = TargetedAPGD(BALL, steps=2, run_to_end=True), Watched(
        predictor(classes=classes), batch, lambda logits, labels, goals: logits.sum(1))
    with torch.no_grad():
        attack.run_search(objective, images, streams(batch))
    assert set(asked) == {(row, goal) for row in range(4) for goal in range(classes) if goal != labels[row]}


def test_the_likeliest_class_is_the_first_target():
    images, labels = make_images(6, seed=4)
    batch = batch_of(images, labels)
    objective = ClassifierObjective(predictor(), batch, dlr)
    order = objective.rank_rivals(torch.arange(6))
    for row, logits in enumerate(predictor().logits(images).tolist()):
        rest = [kind for kind in range(4) if kind != labels[row]]
        assert order[row].tolist() == sorted(rest, key=lambda kind, logits=logits: -logits[kind])


class Chance(torch.nn.Module):
    """A model that is right, but for every fifth pass."""

    def __init__(self):
        super().__init__()
        self.inner, self.passes = predictor().model, 0

    def forward(self, images):
        self.passes += 1
        return self.inner(images).roll(int(self.passes % 5 == 0), 1)


def test_several_passes_are_averaged_and_run_to_the_end():
    images, labels = make_images(4, seed=6)
    chance = Chance().eval()
    attacked(APGD(BALL, steps=3, eot=4), predictor(chance), batch_of(images, labels))
    assert chance.passes == 1 + 4 * 4  # the clean images, the start and three moves


def test_stops_as_soon_as_all_are_fooled():
    images, labels = make_images(8, seed=6)
    batch, chance = batch_of(images, labels), Chance().eval()
    chance.passes = -10 ** 6  # 5 divides it, so that the first ten passes or so count, not their luck
    found = attacked(APGD(ThreatModel('Linf', .3)), predictor(chance), batch)
    assert fooled(predictor(), found, batch).sum() >= 7 and chance.passes + 10 ** 6 < 60
