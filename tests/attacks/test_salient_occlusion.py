"""Occlusion of what matters to a linear model, whose saliency is known."""

import pytest
import torch
from torch import nn

from pit_downstream.attacks.base import build_attack
from pit_downstream.utils.protocols import Sample
from pit_downstream.utils.spec import Spec
from pit_downstream.datasets.base import Preprocess
from pit_downstream.evaluation.classifier import ClassifierPredictor, Preparation
from pit_downstream.utils.rng import BatchRng


class Corner(nn.Module):
    """Class 0 where the upper left quarter of the image is bright; the rest hardly counts."""

    def forward(self, images):
        seen = images[:, :, :8, :8].mean((1, 2, 3)) + 1e-3 * images.mean((1, 2, 3))
        return torch.stack([seen, .3 - seen], 1)


@pytest.fixture
def predictor():
    return ClassifierPredictor(Corner(), Preparation(Preprocess(None, None), (0, 0, 0), (1, 1, 1)), name='corner')


def occluded(predictor, **arguments):
    batch = predictor.collate([Sample(str(number), torch.full((3, 16, 16), 200, dtype=torch.uint8), 0)
                               for number in range(2)])
    attack = build_attack(Spec.of('occlude_salient', side=4, **arguments))
    return attack(predictor, batch, BatchRng(0, ['0', '1'])), batch


def test_the_salient_quarter_becomes_black(predictor):
    images, batch = occluded(predictor, count=4)
    wanted = batch.images.clone()
    wanted[:, :, :8, :8] = 0
    assert torch.equal(images, wanted)
    assert predictor.predict(images, batch).predictions.argmax(1).tolist() == [1, 1]


def test_the_least_salient_three_quarters_leave_the_verdict(predictor):
    images, batch = occluded(predictor, count=12, least=True)
    wanted = torch.zeros_like(batch.images)
    wanted[:, :, :8, :8] = batch.images[:, :, :8, :8]
    assert torch.equal(images, wanted)
    assert predictor.predict(images, batch).predictions.argmax(1).tolist() == [0, 0]


def test_what_is_misclassified_is_left(predictor):
    batch = predictor.collate([Sample('0', torch.full((3, 16, 16), 200, dtype=torch.uint8), 1)])
    found = build_attack(Spec.of('occlude_salient', side=4))(predictor, batch, BatchRng(0, ['0']))
    assert torch.equal(found, batch.images)
