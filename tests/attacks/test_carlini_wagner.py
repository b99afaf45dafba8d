"""Carlini & Wagner's attack against torchattacks, foolbox and the distance to a plane."""

import pytest
import torch

from pit_downstream.attacks.carlini_wagner import CarliniWagner
from pit_downstream.attacks.threat_model import ThreatModel
from tests.attacks.toys import Linear, attacked, batch_of, fooled, make_images, predictor, trained

pytestmark = pytest.mark.numeric

WIDE = ThreatModel('L2', 20.)


def scene(count=6):
    images, labels = make_images(count, seed=7)
    return batch_of(images.clamp(.02, .98), labels), labels


class Lifted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = trained()

    def forward(self, images):
        return self.inner(images) + 20


def test_one_weight_as_torchattacks():
    """Theirs looks before a step, so it makes one more; its margin is right for logits above 0 only, so they get 20."""
    torchattacks = pytest.importorskip('torchattacks')
    batch, labels = scene()
    ours = CarliniWagner(WIDE, steps=20, searches=1, constant=5., rate=.005, run_to_end=True)
    theirs = torchattacks.CW(Lifted().eval(), c=5., kappa=0, steps=21, lr=.005)
    found, wanted = [], []
    for row in range(3):
        one = batch.part([row])
        found.append(attacked(ours, predictor(), one))
        wanted.append(theirs(one.images, labels[row:row + 1]))
    assert sum(bool(fooled(predictor(), images, batch.part([row]))) for row, images in enumerate(wanted)) >= 2
    torch.testing.assert_close(torch.cat(found), torch.cat(wanted), rtol=0, atol=1e-4)


def test_bisection_as_foolbox():
    foolbox = pytest.importorskip('foolbox', exc_type=ImportError)
    batch, labels = scene()
    theirs = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=5, steps=40, stepsize=.03, initial_const=.1,
                                                   abort_early=False)
    wanted = theirs.run(foolbox.PyTorchModel(trained(), bounds=(0, 1), device='cpu'), batch.images,
                        foolbox.Misclassification(labels))
    ours = CarliniWagner(WIDE, steps=40, searches=5, constant=.1, rate=.03, run_to_end=True)
    found = attacked(ours, predictor(), batch)
    assert fooled(predictor(), found, batch).all() and fooled(predictor(), wanted, batch).all()
    sizes, expected = (WIDE.get_size(images - batch.images) for images in (found, wanted))
    torch.testing.assert_close(sizes, expected, rtol=.01, atol=0)


def test_the_smallest_perturbation_of_a_linear_model_is_its_distance():
    line = predictor(Linear())
    images = make_images(4, seed=5)[0] * .4 + .3
    direction = (line.model.weight / line.model.weight.norm()).detach().view(3, 12, 12).float()
    distance = torch.tensor([.2, .4, .6, .8])
    on_plane = images - (line.logits(images)[:, 1] / line.model.weight.norm()).float()[:, None, None, None] * direction
    images = on_plane + distance[:, None, None, None] * direction
    batch = batch_of(images, torch.ones(4))
    attack = CarliniWagner(WIDE, steps=60, searches=7, constant=.01, rate=.01, run_to_end=True)
    found = attacked(attack, line, batch)
    assert fooled(line, found, batch).all()
    torch.testing.assert_close(WIDE.get_size(found - images), distance, rtol=.01, atol=0)


def test_what_needs_more_than_epsilon_stays_clean():
    batch, _ = scene(8)
    attack = CarliniWagner(WIDE, steps=60, searches=3, constant=1., rate=.03, run_to_end=True)
    sizes = WIDE.get_size(attacked(attack, predictor(), batch) - batch.images)
    epsilon = sizes.median().item()
    narrow = CarliniWagner(ThreatModel('L2', epsilon), steps=60, searches=3, constant=1., rate=.03)
    found = attacked(narrow, predictor(), batch)
    verdict = fooled(predictor(), found, batch)
    assert torch.equal(verdict, sizes <= epsilon * (1 + 1e-5)) and verdict.any() and not verdict.all()
    assert torch.equal(found[~verdict], batch.images[~verdict])


def test_confidence_is_a_margin():
    batch, labels = scene()
    attack = CarliniWagner(WIDE, steps=60, searches=3, constant=1., rate=.03, confidence=2., run_to_end=True)
    logits = predictor().logits(attacked(attack, predictor(), batch))
    true = logits.gather(1, labels[:, None])[:, 0]
    other = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    assert (other - true >= 1.999).all()


@pytest.mark.parametrize('given, words', [({'searches': 0}, 'searches is 1 or more, got 0'),
                                          ({'rate': 0.}, 'rate is above 0, got 0.0'),
                                          ({'confidence': -1.}, 'confidence is 0 or more, got -1.0')])
def test_wrong_arguments_get_one_sentence(given, words):
    with pytest.raises(ValueError, match=words):
        CarliniWagner(WIDE, **given)
    with pytest.raises(ValueError, match="norm is one of L2 for CarliniWagner, got 'Linf'"):
        CarliniWagner(ThreatModel('Linf', .1))
