"""Links against values known in closed form."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from align.objectives.links import logistic


def test_logistic_by_hand():
    z = torch.tensor([0.0, math.log(3)], dtype=torch.float64)
    torch.testing.assert_close(logistic(z), torch.tensor([math.log(2), math.log(4 / 3)], dtype=torch.float64))


def test_logistic_is_linear_far_below_and_zero_far_above():
    z = torch.tensor([-1e4, 1e4])
    assert logistic(z).tolist() == [1e4, 0.0]


@given(st.floats(-50, 50))
def test_logistic_differs_from_its_mirror_by_the_argument(z):
    value = torch.tensor([z], dtype=torch.float64)
    torch.testing.assert_close(logistic(value) - logistic(-value), -value, rtol=1e-9, atol=1e-9)
