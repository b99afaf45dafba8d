"""Curves of attacks against a model whose threshold is known: what is fooled, at which epsilon, by how many passes."""

from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from torch import nn

from pit_downstream.attacks.base import Attack
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.utils.protocols import Sample
from pit_downstream.utils.registry import ATTACKS
from pit_downstream.utils.spec import Spec
from pit_downstream.datasets.base import Preprocess
from pit_downstream.datasets.imagenet import load_class_folders
from pit_downstream.evaluation.attacking import CountingPredictor, KnownOutcomes, attack_curve, implies_success
from pit_downstream.evaluation.classifier import ClassifierPredictor, Preparation
from pit_downstream.evaluation.evaluator import group_conditions
from pit_downstream.evaluation.models import build_classifier
from pit_downstream.metrics.classification import make_top1_error
from tests.evaluation import toy
from tests.evaluation.test_evaluator import measure

GREYS = (133, 138, 153, 102)  # margins to the threshold of 127.5: 5.5, 10.5, 25.5 levels, and the wrong side
STEEP = 'pgd(epsilon={}/255, start="clean", step=1, steps=3)'  # one step reaches the border of the ball
LEVELS = (4, 8, 12)


class Threshold(nn.Module):
    """Class 0 where an image is brighter than the middle, else class 1; the gradient is the same everywhere."""

    def forward(self, images):
        above = images.mean((1, 2, 3)) - .5
        return torch.stack([above, -above], 1)


@pytest.fixture
def predictor():
    return ClassifierPredictor(Threshold(), Preparation(Preprocess(None, None), (0, 0, 0), (1, 1, 1)), name='threshold')


@pytest.fixture
def batch(predictor):
    images = [torch.full((3, 4, 4), gray, dtype=torch.uint8) for gray in GREYS]
    return predictor.collate([Sample(str(gray), image, 0) for gray, image in zip(GREYS, images, strict=True)])


def specs(text=STEEP, levels=LEVELS):
    return [Spec.parse(text.format(level)) for level in levels]


def test_each_epsilon_fools_what_its_ball_reaches(predictor, batch):
    curve = list(attack_curve(predictor, batch, specs(), 0))
    assert [found.wrong.tolist() for found in curve] == [
        [False, False, False, True], [True, False, False, True], [True, True, False, True]]
    for found, level in zip(curve, LEVELS, strict=True):
        assert torch.equal(found.outputs.predictions.argmax(1) == 1, found.wrong)
        assert torch.equal(found.outputs.predictions, predictor.predict(found.images, batch).predictions)
        assert (found.images - batch.images).abs().max() <= level / 255 + 1e-6
        assert torch.equal(found.images[3], batch.images[3])  # wrong already, so left alone


def test_passes_are_counted_exactly(predictor, batch):
    """Standing: a look, a start, three steps and the verdict, of which the start and two steps go back. Fooled by the
    first step: a look, a start, a step and the verdict; back go the start and the step."""
    curve = list(attack_curve(predictor, batch, specs(), 0))
    assert [(found.forwards, found.backwards) for found in curve] == [
        (3 * 6, 3 * 3), (4 + 2 * 6, 2 + 2 * 3), (4 + 6, 2 + 3)]


def test_what_a_smaller_epsilon_fooled_is_carried(predictor, batch):
    curve = list(attack_curve(predictor, batch, specs(), 0))
    assert torch.equal(curve[2].images[0], curve[1].images[0])
    assert not torch.equal(curve[2].images[1], curve[1].images[1])


def test_running_to_the_end_takes_every_image_at_every_epsilon(predictor, batch):
    curve = list(attack_curve(predictor, batch, specs(STEEP.replace('start', 'run_to_end=True, start')), 0))
    assert [found.wrong.tolist() for found in curve] == [
        [False, False, False, True], [True, False, False, True], [True, True, False, True]]
    assert {(found.forwards, found.backwards) for found in curve} == {(4 * 5, 4 * 3)}  # nothing is looked at before
    darker = [(batch.images - found.images).amax((1, 2, 3)) * 255 for found in curve]
    assert torch.stack(darker, 1).allclose(torch.tensor(LEVELS).float().expand(4, 3), atol=1e-4)


@pytest.mark.parametrize('text, further', [
    ('pgd(epsilon={})', True), ('pgd(epsilon={}, run_to_end=True)', False), ('noise(epsilon={})', True),
    ("transfer(source='m', epsilon={})", True), ("transfer(source='m', run_to_end=True, epsilon={})", True)])
def test_what_is_carried_in_one_run_is_carried_to_the_next(text, further):
    small, large = (Spec.parse(text.format(epsilon)) for epsilon in ('4/255', '8/255'))
    assert implies_success(small, large) is further and implies_success(large, large)
    assert not implies_success(large, small)


def test_images_with_known_outcomes_are_not_attacked(predictor, batch):
    """The first image is known at 4/255 to stand and at 8/255 to be fooled."""
    first = torch.tensor([True, False, False, False])
    no = torch.zeros(4, dtype=torch.bool)
    curve = list(attack_curve(predictor, batch, specs(), 0, known=[
        KnownOutcomes(first, no), KnownOutcomes(first, first), KnownOutcomes(no, first)]))
    assert [found.wrong.tolist() for found in curve] == [
        [False, False, False, True], [True, False, False, True], [True, True, False, True]]
    assert [found.forwards for found in curve] == [2 * 6, 2 * 6, 4 + 6]


def test_batches_make_no_difference(predictor, batch):
    whole = list(attack_curve(predictor, batch, specs('pgd(epsilon={}/255, steps=3)'), 5))
    parts = [list(attack_curve(predictor, batch.part([row]), specs('pgd(epsilon={}/255, steps=3)'), 5))
             for row in range(4)]
    for place, found in enumerate(whole):
        assert torch.equal(found.images, torch.cat([part[place].images for part in parts]))
        assert found.forwards == sum(part[place].forwards for part in parts)


def test_false_success_of_an_attack_is_not_counted(predictor, batch, monkeypatch):
    """The verdict is predict()'s; where an attack made a wrong image right, the clean one stands."""
    @dataclass(frozen=True)
    class Brighter(Attack):
        run_to_end: bool = True

        def run(self, predictor, batch, rng):
            return batch.images + self.threat.epsilon
    monkeypatch.setattr(ATTACKS, '_entries', ATTACKS._entries.copy())
    ATTACKS.register('brighter', source='this test')(Brighter)
    (found,) = attack_curve(predictor, batch, [Spec.of('brighter', epsilon=.2)], 0)
    assert found.wrong.tolist() == [False, False, False, True]
    assert torch.equal(found.images[3], batch.images[3]) and (found.images[:3] > batch.images[:3]).all()
    assert found.outputs.predictions[3].argmax() == 1


def test_half_precision_searches_and_float32_judges(batch):
    """In bfloat16 the model sees every image on the wrong side, and all is searched and judged nevertheless."""
    class Coarse(Threshold):
        def forward(self, images):
            if torch.is_autocast_enabled(images.device.type):
                images = images - .3
            return super().forward(images)
    predictor = ClassifierPredictor(Coarse(), Preparation(Preprocess(None, None), (0, 0, 0), (1, 1, 1)), name='coarse',
                                    search='bf16')
    assert predictor.rough and not torch.equal(predictor.logits(batch.images),
                                               predictor.predict(batch.images, batch).predictions)
    curve = list(attack_curve(predictor, batch, specs(), 0))
    assert [found.wrong.tolist() for found in curve] == [
        [False, False, False, True], [True, False, False, True], [True, True, False, True]]


def test_search_is_named_and_amp_is_not_search():
    assert "search='bf16'" in build_classifier(toy.NAME, search='bf16').name
    assert not build_classifier(toy.NAME, amp='bf16').rough
    with pytest.raises(ValueError, match="amp is one of bf16, fp16, got 'int8'"):
        build_classifier(toy.NAME, search='int8')


def test_logits_that_are_not_finite_are_no_success(predictor, batch):
    predictor.model.register_forward_hook(lambda module, given, logits: logits / 0)
    with pytest.raises(ValueError, match='expected finite logits, got NaN or infinity for 4 of 4 images'):
        list(attack_curve(predictor, batch, specs(), 0))


class Detector:
    """Knows a loss and no logits."""

    name = 'detector'
    device = torch.device('cpu')

    def __init__(self, inner):
        self.collate, self.loss, self.predict = inner.collate, inner.loss, inner.predict


def test_a_predictor_without_logits_is_attacked_at_every_epsilon(predictor, batch):
    assert not hasattr(CountingPredictor(Detector(predictor)), 'logits')
    curve = list(attack_curve(Detector(predictor), batch, specs(), 0))
    assert [found.wrong for found in curve] == [None] * 3
    assert {(found.forwards, found.backwards) for found in curve} == {(4 * 5, 4 * 3)}
    assert [found.outputs.predictions.argmax(1).sum().item() for found in curve] == [1, 2, 3]


# ---- in the loop

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return toy.recognised(tmp_path_factory.mktemp('pictures') / 'val', count=20)


def under(corruption, attack, levels=(1, 4)):
    return [Condition(corruption, Spec.of(attack, epsilon=Fraction(level, 255), steps=4)) for level in levels]


def test_the_loop_attacks_clean_and_corrupted_images(folder):
    """The oracle corrupts by the toy's formula and attacks image by image."""
    predictor = build_classifier(toy.FOUR)
    samples = load_class_folders(folder, view=predictor.view)
    dark = Spec.of('toy_dark', severity=2)
    conditions = [CLEAN, *under(None, 'pgd'), *under(dark, 'pgd')]
    records = [record for record in measure(predictor, samples, [make_top1_error()], conditions, batch_size=8)
               if record.metric == 'top1_error']
    assert [record.condition for record in records] == list(map(str, conditions))
    for condition, record in zip(conditions[1:], records[1:], strict=True):
        wrong = 0
        for sample in (samples[index] for index in range(20)):
            if condition.corruption is not None:
                levels = (sample.image.float() * toy.DARK[1] + 2 ** -11).floor().to(torch.uint8)
                sample = Sample(sample.id, levels, sample.target)
            batch = predictor.collate([sample])
            smaller = [one.attack for one in conditions[1:3] if one.attack <= condition.attack]
            wrong += list(attack_curve(predictor, batch, smaller, 0))[-1].wrong.item()
        assert record.value == wrong / 20 and record.count == 20
    values = [record.value for record in records]
    assert values[0] <= values[1] <= values[2] and values[2] > values[0]


def test_epsilons_share_a_group_in_rising_order(folder):
    samples = load_class_folders(folder, view=Preprocess(32, None))
    _, plan = group_conditions(samples, [
        *under(None, 'pgd', (8, 1)), *under(Spec.of('toy_dark', severity=1), 'pgd', (2,)),
        *under(Spec.of('toy_dark', severity=2), 'pgd', (2,)), CLEAN, *under(None, 'pgd', (4,))])
    assert [group.title for group in plan] == [
        'pgd(steps=4)', 'toy_dark(severity=1) + pgd(steps=4)', 'toy_dark(severity=2) + pgd(steps=4)', 'clean']
    assert [float(condition.attack.get('epsilon')) * 255 for condition, _ in plan[0].work] == [1, 4, 8]


def test_strengths_of_occlusion_share_a_group(folder):
    predictor = build_classifier(toy.FOUR)
    samples = load_class_folders(folder, view=predictor.view)
    conditions = [Condition(Spec.parse(f'occlusion(share={share})')) for share in ('1/4', '0.5', '1')]
    assert len(group_conditions(samples, conditions)[1]) == 1
    values = [record.value for record in measure(predictor, samples, [make_top1_error()], conditions)]
    black = predictor.predict(torch.zeros(1, 3, 32, 32), None).predictions.argmax().item()
    assert values[-1] == sum(target != black for target in samples.targets) / 20


