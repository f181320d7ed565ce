"""Links against values known in closed form."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from align.objectives.links import hinge, logistic, smoothed_logistic, squared


def one(z):
    return torch.tensor([z], dtype=torch.float64)


def test_logistic_by_hand():
    z = torch.tensor([0.0, math.log(3)], dtype=torch.float64)
    torch.testing.assert_close(logistic(z), torch.tensor([math.log(2), math.log(4 / 3)], dtype=torch.float64))


def test_logistic_is_linear_far_below_and_zero_far_above():
    z = torch.tensor([-1e4, 1e4])
    assert logistic(z).tolist() == [1e4, 0.0]


@given(st.floats(-50, 50))
def test_logistic_differs_from_its_mirror_by_the_argument(z):
    torch.testing.assert_close(logistic(one(z)) - logistic(one(-z)), -one(z), rtol=1e-9, atol=1e-9)


@given(st.floats(-50, 50), st.floats(0, 0.49))
def test_smoothing_adds_the_argument_as_often_as_labels_are_wrong(z, epsilon):
    """(1-e) l(z) + e l(-z) = l(z) + e z."""
    torch.testing.assert_close(
        smoothed_logistic(one(z), epsilon), logistic(one(z)) + epsilon * one(z), rtol=1e-9, atol=1e-9
    )


def test_hinge_and_squared_by_hand():
    z = torch.tensor([-1.0, 0.5, 1.0, 3.0])
    assert hinge(z).tolist() == [2.0, 0.5, 0.0, 0.0]
    assert squared(z, 1.0).tolist() == [4.0, 0.25, 0.0, 4.0]
