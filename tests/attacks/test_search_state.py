"""Selection and concatenation of rows: nested states and optional fields."""

from dataclasses import fields

import torch

from pit_downstream.attacks.adam import AdamState
from pit_downstream.attacks.gradient import PGDState
from pit_downstream.attacks.objective import LossEvaluation
from pit_downstream.attacks.search_state import ActiveSamples


def make_state(*numbers):
    """A state in which every tensor of a row is filled with the row's number. Without goals and gradient_sum."""
    values = torch.tensor(numbers)
    images = values.float().view(-1, 1, 1, 1).expand(-1, 3, 2, 5)
    return PGDState(samples=ActiveSamples(row=values, variant=values, clean=images), adversarial=images,
                    fooled=values > 2, loss=values.float(), gradient=images, adam=AdamState(mean=images, square=images))


def assert_equal(actual, expected):
    assert type(actual) is type(expected)
    for field in fields(expected):
        left, right = getattr(actual, field.name), getattr(expected, field.name)
        if isinstance(right, torch.Tensor):
            assert torch.equal(left, right), field.name
        elif right is None:
            assert left is None, field.name
        else:
            assert_equal(left, right)


def test_select_returns_rows_in_order_of_nested_states():
    assert_equal(make_state(1, 2, 3, 4).select(torch.tensor([3, 0])), make_state(4, 1))


def test_concatenate_appends_rows_of_nested_states():
    assert_equal(PGDState.concatenate([make_state(1, 2), make_state(5), make_state(3)]), make_state(1, 2, 5, 3))


def test_select_and_concatenate_include_optional_field_once_set():
    first, second = make_state(1, 2), make_state(3)
    first.goals, second.goals = torch.tensor([7, 8]), torch.tensor([9])
    joined = PGDState.concatenate([first, second])
    assert joined.goals.tolist() == [7, 8, 9]
    assert joined.select(torch.tensor([2, 0])).goals.tolist() == [9, 7]


def test_selected_state_is_independent_of_later_assignments():
    state = make_state(1, 2)
    selected = state.select(torch.tensor([0]))
    state.adam.mean = torch.zeros(2, 3, 2, 5)
    state.loss = torch.zeros(2)
    assert_equal(selected, make_state(1))


def test_move_keeps_gradient_that_was_not_requested():
    state, images = make_state(1), torch.zeros(1, 3, 2, 5)
    gradient = state.gradient
    state.move(images, LossEvaluation(torch.tensor([4.]), torch.tensor([True])))
    assert state.adversarial is images and state.gradient is gradient
    assert state.loss.tolist() == [4] and state.fooled.tolist() == [True]
    state.move(images, LossEvaluation(torch.tensor([4.]), torch.tensor([True]), images))
    assert state.gradient is images
