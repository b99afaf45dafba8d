"""AutoAttack: its members, that it is as strong as each of them, and the function for any callable."""

import logging

import pytest
import torch

from pit_downstream.attacks import autoattack, ensemble
from pit_downstream.attacks.apgd import APGD
from pit_downstream.attacks.ensemble import AutoAttack
from pit_downstream.attacks.losses import warn_once
from pit_downstream.attacks.threat_model import ThreatModel
from tests.attacks.toys import CLASSES, attacked, batch_of, fooled, make_images, predictor, trained

EPSILONS = {'Linf': .035, 'L2': .5, 'L1': 3.}


def quick(norm='Linf', **more):
    return AutoAttack(ThreatModel(norm, EPSILONS[norm]), **{'effort': .04, **more})


def told(version, norm='Linf'):
    """The members as the settings that FACTS 6.1 and the original's set_version() name."""
    return [(type(one).__name__, one.loss, one.steps, getattr(one, 'restarts', 1), getattr(one, 'targets', None),
             getattr(one, 'eot', None)) for one in AutoAttack(ThreatModel(norm, .1), version=version).make_members()]



def test_the_function_leaves_inference_mode():
    images, labels = make_images(8, seed=3)
    wanted = autoattack(trained(), images, labels, epsilon=.04)
    with torch.inference_mode():
        found = autoattack(trained(), images * 1, labels * 1, epsilon=.04)
    assert torch.equal(found, wanted) and not torch.equal(found, images)


def test_members_are_the_originals():
    assert told('standard') == told('standard', 'L2') == [
        ('APGD', 'ce', 100, 1, None, 1), ('TargetedAPGD', 'dlr_t', 100, 1, 9, 1),
        ('TargetedFAB', 'margin_t', 100, 1, 9, None), ('Square', 'margin', 5000, 1, None, None)]
    assert told('standard', 'L1') == [
        ('APGD', 'ce', 100, 5, None, 1), ('TargetedAPGD', 'dlr_t', 100, 1, 5, 1),
        ('TargetedFAB', 'margin_t', 100, 1, 9, None), ('Square', 'margin', 5000, 1, None, None)]
    assert told('plus') == [
        ('APGD', 'ce', 100, 5, None, 1), ('APGD', 'dlr', 100, 5, None, 1), ('FAB', 'margin', 100, 5, None, None),
        ('Square', 'margin', 5000, 1, None, None), ('TargetedAPGD', 'dlr_t', 100, 1, 9, 1),
        ('TargetedFAB', 'margin_t', 100, 1, 9, None)]
    assert told('rand') == [('APGD', 'ce', 100, 1, None, 20), ('APGD', 'dlr', 100, 1, None, 20)]


@pytest.mark.parametrize('norm', EPSILONS)
def test_as_strong_as_every_member(norm):
    images, labels = make_images(12, seed=13)
    batch, attack = batch_of(images, labels), quick(norm)
    whole = fooled(predictor(), attacked(attack, predictor(), batch), batch)
    for member in attack.make_members():
        alone = fooled(predictor(), attacked(member, predictor(), batch), batch)
        assert not (alone & ~whole).any()
    assert 0 < whole.sum() < 12


def test_each_member_gets_what_the_one_before_left(monkeypatch):
    asked = []

    class Spy(APGD):
        def run_search(self, objective, images, rng, *, among=None, **more):
            asked.append(among.clone())
            return super().run_search(objective, images, rng, among=among, **more)
    images, labels = make_images(8, seed=13)
    labels[2] = (labels[2] + 1) % CLASSES
    batch, model = batch_of(images, labels), predictor()
    members = tuple(Spy(ThreatModel('Linf', epsilon), steps=3) for epsilon in (.02, .05, .3))
    monkeypatch.setattr(AutoAttack, 'make_members', lambda self: members)
    found = attacked(AutoAttack(ThreatModel('Linf', .3)), model, batch)
    assert not asked[0][2] and asked[0].sum() == 7
    assert all((later <= earlier).all() for earlier, later in zip(asked, asked[1:], strict=False))
    assert torch.equal(found[2], images[2]) and fooled(model, found, batch).sum() >= 7


def test_what_square_alone_fools_is_a_warning(caplog):
    """Behind rounding no gradient reaches the image: the members that follow one find nothing."""
    inner = trained()

    class Rounded(torch.nn.Module):
        def forward(self, images):
            return inner((images * 15).round() / 15)

    warn_once.cache_clear()
    batch = batch_of(*make_images(8, seed=13))
    with caplog.at_level(logging.WARNING):
        attacked(quick(), predictor(), batch)
        assert not any('uses no gradient' in words for words in caplog.messages)
        whole = AutoAttack(ThreatModel('Linf', .1), effort=.02)
        found = attacked(whole, predictor(Rounded().eval()), batch)
    assert fooled(predictor(Rounded().eval()), found, batch).sum() > 1
    assert sum(words.startswith('square uses no gradient and fools images') for words in caplog.messages) == 1


@pytest.mark.parametrize('classes', [2, 3, 6])
def test_few_classes(classes, caplog):
    warn_once.cache_clear()
    images, labels = make_images(6, classes, seed=14)
    mild = AutoAttack(ThreatModel('Linf', .001), effort=.02)  # or the first member leaves nothing to the second
    with caplog.at_level(logging.WARNING):
        found = attacked(mild, predictor(classes=classes), batch_of(images, labels))
    assert found.isfinite().all()
    words = ' '.join(caplog.messages)
    assert ('the plain margin takes its place' in words) == (classes < 4)
    assert (f'9 target classes were requested, but the model has {classes} classes: {classes - 1} targets are used'
            in words)
    assert 'weaker than AutoAttack' in words


def short(monkeypatch):
    """The plain function with a share of the steps."""
    whole = AutoAttack
    monkeypatch.setattr(ensemble, 'AutoAttack', lambda *args, **more: whole(*args, effort=.03, **more))


def test_plain_function_batch_size_and_seed(monkeypatch):
    short(monkeypatch)
    images, labels = make_images(8, seed=15)
    results = [autoattack(trained(), images, labels, epsilon=.03, batch_size=size) for size in (None, 3, 3)]
    verdicts = [trained()(found).argmax(1) != labels for found in results]
    assert torch.equal(results[1], results[2])
    assert torch.equal(verdicts[0], verdicts[1]) and 0 < verdicts[0].sum() < 8
    other = autoattack(trained(), images, labels, epsilon=.03, seed=1)
    assert not torch.equal(other, results[0])
    assert all((found - images).abs().max() <= .03 + 1e-6 and 0 <= found.min() <= found.max() <= 1 for found in results)
    left = ~verdicts[0]
    assert torch.equal(results[0][left], images[left])


def test_plain_function_takes_any_callable(monkeypatch):
    short(monkeypatch)
    images, labels = make_images(3, seed=15)
    found = autoattack(lambda shown: trained()(shown) * 2 + 1, images, labels, epsilon=.05)
    assert found.shape == images.shape and (trained()(found).argmax(1) != labels).any()
    assert autoattack(trained(), images[:0], labels[:0]).shape == (0, *images.shape[1:])


@pytest.mark.parametrize('change, words', [
    ({'images': torch.zeros(2, 3, 4)}, r'expected images \(N, 3, H, W\) and labels \(N,\), got \(2, 3, 4\) and \(2,\)'),
    ({'labels': torch.zeros(3)}, r'got \(2, 3, 12, 12\) and \(3,\)'),
    ({'images': torch.full((2, 3, 12, 12), 2.)}, r'expected images in \[0, 1\], got 2 to 2; put the normalization'),
    ({'norm': 'L3'}, 'norm is one of Linf, L2, L1'), ({'epsilon': 8}, 'epsilon is 0..1 under Linf, got 8'),
    ({'version': 'fast'}, "version is one of standard, plus, rand, got 'fast'")])
def test_bad_input_gets_one_sentence(change, words):
    images, labels = make_images(2)
    with pytest.raises(ValueError, match=words):
        autoattack(trained(), **({'images': images, 'labels': labels} | change))


def test_effort_is_a_share():
    with pytest.raises(ValueError, match=r'effort is a share in \(0, 1\] of the official steps, got 0'):
        quick(effort=0)
