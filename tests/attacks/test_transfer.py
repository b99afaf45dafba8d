"""Transfer: the images are the source's, and the attacked model is asked for nothing."""

import pytest
import torch

from pit_downstream.attacks.base import build_attack
from pit_downstream.attacks.gradient import MIM
from pit_downstream.attacks.transfer import Transfer
from pit_downstream.utils.spec import Spec
from pit_downstream.datasets.base import Preprocess
from pit_downstream.evaluation.classifier import ClassifierPredictor, Preparation
from tests.attacks.toys import attacked, batch_of, make_images, predictor, trained


class Untouchable:
    """A predictor that may not be asked for anything."""

    name = 'untouchable'

    def logits(self, images):
        raise AssertionError('the attacked model was asked')

    loss = predict = logits


def test_the_images_are_those_that_fool_the_source():
    batch = batch_of(*make_images(6, seed=23))
    spec = Spec.parse("transfer(source='tiny(a=1)', epsilon=.05, steps=4)")
    asked = []
    attack = build_attack(spec, predictors=lambda text: asked.append(text) or predictor())
    assert asked == ['tiny(a=1)'] and attack.attack == MIM(attack.threat, steps=4, run_to_end=True)
    assert torch.equal(attacked(attack, Untouchable(), batch), attacked(attack.attack, predictor(), batch))


def test_arguments_of_the_inner_attack_are_kept():
    spec = Spec.parse("transfer(source='tiny', attack='pgd', norm='L2', epsilon=1, restarts=2, run_to_end=False)")
    inner = build_attack(spec, predictors=lambda text: predictor()).attack
    assert (inner.threat.norm, inner.threat.epsilon, inner.restarts, inner.run_to_end) == ('L2', 1., 2, False)


def test_attacks_without_an_end_transfer_too():
    attack = build_attack(Spec.parse("transfer(source='tiny', attack='noise', epsilon=.1)"),
                          predictors=lambda text: predictor())
    assert isinstance(attack, Transfer) and type(attack.attack).__name__ == 'Noise'


def test_a_source_is_needed_and_of_the_same_size():
    with pytest.raises(ValueError, match=r'expected a way to build tiny .* give build_attack\(predictors=\)'):
        build_attack(Spec.parse("transfer(source='tiny', epsilon=.1)"))
    attack = build_attack(Spec.parse("transfer(source='tiny', epsilon=.1)"), predictors=lambda text: predictor())
    other = ClassifierPredictor(trained(), Preparation(Preprocess(64, 64, 'bilinear')), name='larger')
    with pytest.raises(ValueError, match='expected a source for images of 64 pixels as larger, got None of tiny'):
        attacked(attack, other, batch_of(*make_images(2)))
