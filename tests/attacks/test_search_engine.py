"""The engine: what it leaves out must not change what is found. The oracle is a plain loop that leaves nothing out."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from pit_downstream.attacks import search_engine
from pit_downstream.attacks.gradient import PGD
from pit_downstream.attacks.threat_model import ThreatModel
from pit_downstream.evaluation.classifier import ClassifierPredictor
from pit_downstream.utils.rng import BatchRng
from tests.attacks.toys import attacked, batch_of, fooled, make_images, predictor

pytestmark = pytest.mark.numeric

EPSILON = .032
ATTACK = PGD(ThreatModel('Linf', EPSILON), steps=6)


@pytest.fixture(scope='module')
def batch():
    """Sixteen images, two of them with wrong labels: misclassified before any attack."""
    images, labels = make_images(16, seed=11)
    labels[[3, 10]] = (labels[[3, 10]] + 1) % 4
    return batch_of(images, labels)


def walk(attack, batch, variant=0, seed=0):
    """Every image to the last step: the first example that fools or the last one, whether it fools, the last loss."""
    model, labels, clean = predictor(), predictor().labels(batch), batch.images
    own = BatchRng(seed, [s.id for s in batch.samples]).rows(range(len(clean)), [variant] * len(clean), 'PGD', 'cpu')
    images = (clean + (2 * own.uniform(clean.shape) - 1) * EPSILON).clamp(0, 1)
    first, done = clean.clone(), model.logits(clean).argmax(1) != labels
    for step in range(attack.steps + 1):
        images.requires_grad_()
        logits = model.logits(images)
        loss = F.cross_entropy(logits, labels, reduction='none')
        gradient, = torch.autograd.grad(loss.sum(), images)
        images = images.detach()
        fools = logits.argmax(1) != labels
        first[fools & ~done] = images[fools & ~done]
        done |= fools
        if step < attack.steps:
            images = images + 2.5 * EPSILON / attack.steps * gradient.sign()
            images = (clean + (images - clean).clamp(-EPSILON, EPSILON)).clamp(0, 1)
    first[~done] = images[~done]
    return first, done, images, loss.detach()


def test_leaving_early_changes_nothing(batch):
    found = attacked(ATTACK, predictor(), batch)
    first, done, _, _ = walk(ATTACK, batch)
    assert 4 < done.sum() < 15
    assert torch.equal(fooled(predictor(), found, batch), done)
    torch.testing.assert_close(found, first, rtol=0, atol=1e-6)


def test_what_is_misclassified_stays_as_it_is(batch):
    found = attacked(ATTACK, predictor(), batch)
    assert torch.equal(found[[3, 10]], batch.images[[3, 10]])


def test_to_the_end_the_largest_loss_of_the_restarts_is_taken(batch):
    attack = replace(ATTACK, restarts=3, run_to_end=True)
    ends, losses = zip(*(walk(attack, batch, variant)[2:] for variant in range(3)), strict=True)
    best = torch.stack(losses).argmax(0)
    wanted = torch.stack(ends)[best, torch.arange(len(best))]
    assert best.unique().tolist() == [0, 1, 2]
    torch.testing.assert_close(attacked(attack, predictor(), batch), wanted, rtol=0, atol=1e-6)


def test_restarts_fool_what_any_of_them_fools(batch):
    attack = replace(ATTACK, restarts=4)
    wanted = torch.stack([walk(attack, batch, variant)[1] for variant in range(4)]).any(0)
    assert wanted.sum() > walk(attack, batch)[1].sum()
    assert torch.equal(fooled(predictor(), attacked(attack, predictor(), batch), batch), wanted)


class Counting(ClassifierPredictor):
    """Counts the images whose logits are asked for, and keeps the largest batch."""

    def __init__(self, plain):
        super().__init__(plain.model, plain.preparation, name=plain.name)
        self.images, self.largest = 0, 0

    def logits(self, images):
        self.images += len(images)
        self.largest = max(self.largest, len(images))
        return super().logits(images)


def test_the_batch_stays_full_and_no_larger(batch):
    """Restarts are queued: never more rows than images, and far fewer passes than without leaving."""
    counting = Counting(predictor())
    attacked(replace(ATTACK, restarts=4), counting, batch)
    assert counting.largest == len(batch.images)
    assert counting.images < .6 * 4 * (ATTACK.steps + 1) * len(batch.images)
    to_the_end = Counting(predictor())
    attacked(replace(ATTACK, restarts=4, run_to_end=True), to_the_end, batch)
    assert to_the_end.images == 4 * (ATTACK.steps + 1) * len(batch.images)


@pytest.mark.parametrize('attack', [ATTACK, replace(ATTACK, run_to_end=True, restarts=2),
                                    replace(ATTACK, optimizer='adam')])
def test_an_images_result_does_not_depend_on_its_batch(attack, batch):
    """Alone, in halves, in another order: so a run that is resumed with another batch size goes on as it was."""
    whole = attacked(attack, predictor(), batch)
    for rows in ([4], [10], list(range(5)), list(range(15, 4, -1))):
        torch.testing.assert_close(attacked(attack, predictor(), batch.part(rows)), whole[rows], rtol=0, atol=1e-6)


def test_restarts_verdicts_do_not_depend_on_the_batch(batch):
    attack = replace(ATTACK, restarts=3)
    whole = fooled(predictor(), attacked(attack, predictor(), batch), batch)
    for row in range(16):
        one = batch.part([row])
        assert fooled(predictor(), attacked(attack, predictor(), one), one) == whole[row]


def test_another_seed_starts_elsewhere(batch):
    found = [attacked(ATTACK, predictor(), batch, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize('moves, wanted', [(20, 4), (6, 2), (5, 1), (100, 4)])
def test_looking_seldom_as_on_a_gpu_finds_the_same(moves, wanted, batch, monkeypatch):
    assert search_engine.get_check_interval(moves, torch.device('cuda')) == wanted
    assert search_engine.get_check_interval(moves, torch.device('cpu')) == 1
    attack = replace(ATTACK, steps=min(moves, 20))
    often = fooled(predictor(), attacked(attack, predictor(), batch), batch)
    monkeypatch.setattr(search_engine, 'get_check_interval', lambda num_steps, device: wanted)
    assert torch.equal(fooled(predictor(), attacked(attack, predictor(), batch), batch), often)


class Rough(ClassifierPredictor):
    """Its quick logits put every label `error` lower than its predictions: they call images fooled that are not."""

    def __init__(self, plain, labels, error):
        super().__init__(plain.model, plain.preparation, name=plain.name)
        self.rough = True
        self.known, self.error = labels, error

    def logits(self, images):
        logits = super().logits(images)
        if len(images) != len(self.known):
            return logits - self.error * F.one_hot(self.known[:1].expand(len(images)), logits.shape[1])
        return logits - self.error * F.one_hot(self.known, logits.shape[1])


@pytest.mark.parametrize('error', [.5, 100.])
@pytest.mark.parametrize('pause', [1, 3])
def test_success_under_rough_logits_is_verified(error, pause, batch, monkeypatch):
    """The margin's gradient does not feel the error, so the rough search has to find what the exact one finds."""
    monkeypatch.setattr(search_engine, 'get_check_interval', lambda num_steps, device: pause)
    attack = replace(ATTACK, loss='margin', steps=12)
    for row in range(16):
        one = batch.part([row])
        rough = Rough(predictor(), predictor().labels(one), error)
        exact = fooled(predictor(), attacked(attack, predictor(), one), one)
        assert fooled(predictor(), attacked(attack, rough, one), one) == exact


class Detector:
    """A predictor without logits: its loss is all that an attack can climb."""

    name = 'detector'

    def __init__(self, plain):
        self.plain, self.model = plain, plain.model

    def loss(self, images, batch):
        return self.plain.loss(images, batch)


def test_a_predictor_without_logits_has_its_loss_climbed_to_the_end(batch):
    found = attacked(ATTACK, Detector(predictor()), batch)
    torch.testing.assert_close(found, walk(ATTACK, batch)[2], rtol=0, atol=1e-6)


def test_attacks_on_logits_report_it(batch):
    from pit_downstream.attacks.gradient import TPGD
    with pytest.raises(ValueError, match='expected a classifier for TPGD, got detector, which gives no logits'):
        attacked(TPGD(ThreatModel('Linf', .1)), Detector(predictor()), batch)


def test_gradients_that_are_no_numbers_do_no_harm(batch):
    class Broken(torch.nn.Module):
        def forward(self, images):
            return predictor().model(images) * (images - images).sum((1, 2, 3)).sqrt()[:, None]  # d sqrt at 0: inf * 0
    found = attacked(ATTACK, predictor(Broken()), batch)
    assert found.isfinite().all()
