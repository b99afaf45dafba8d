"""Losses against their formulae, image by image in numpy."""

import logging

import numpy as np
import pytest
import torch

from pit_downstream.attacks.losses import (cross_entropy_to_goal, dlr, dlr_to_goal, margin, margin_to_goal, warn_once)

pytestmark = pytest.mark.numeric

RANDOM = np.random.default_rng(0)


def scene(classes, count=40):
    logits = 3 * RANDOM.standard_normal((count, classes))
    labels = RANDOM.integers(0, classes, count)
    return logits, labels, (labels + RANDOM.integers(1, classes, count)) % classes


def asked(loss, logits, labels, goals):
    return loss(torch.tensor(logits), torch.tensor(labels), torch.tensor(goals)).numpy()


@pytest.mark.parametrize('classes', [4, 10])
def test_difference_of_logits_ratio(classes):
    """Croce & Hein 2020, equations 6 and 7; `order` is the paper's pi."""
    logits, labels, goals = scene(classes)
    plain, targeted = [], []
    for z, y, t in zip(logits, labels, goals, strict=True):
        order = np.sort(z)[::-1]
        plain.append(-(z[y] - max(np.delete(z, y))) / (order[0] - order[2]))
        targeted.append(-(z[y] - z[t]) / (order[0] - (order[2] + order[3]) / 2))
    np.testing.assert_allclose(asked(dlr, logits, labels, goals), plain, rtol=1e-9)
    np.testing.assert_allclose(asked(dlr_to_goal, logits, labels, goals), targeted, rtol=1e-9)
    np.testing.assert_allclose(asked(dlr, 1000 * logits + 5, labels, goals), plain, rtol=1e-9)


@pytest.mark.parametrize('classes', [2, 3])
def test_few_classes_get_the_plain_margin_and_a_word(classes, caplog):
    warn_once.cache_clear()
    logits, labels, goals = scene(classes)
    with caplog.at_level(logging.WARNING):
        found, targeted = asked(dlr, logits, labels, goals), asked(dlr_to_goal, logits, labels, goals)
    wanted = [max(np.delete(z, y)) - z[y] for z, y in zip(logits, labels, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    np.testing.assert_array_equal(found, asked(margin, logits, labels, goals))
    np.testing.assert_array_equal(targeted, asked(margin_to_goal, logits, labels, goals))
    assert caplog.messages == [f'DLR needs 4 classes, the model has {classes}: the plain margin takes its place']


def test_cross_entropy_of_a_goal():
    logits, labels, goals = scene(5)
    wanted = [z[t] - np.log(np.exp(z).sum()) for z, t in zip(logits, goals, strict=True)]
    np.testing.assert_allclose(asked(cross_entropy_to_goal, logits, labels, goals), wanted, rtol=1e-9)
