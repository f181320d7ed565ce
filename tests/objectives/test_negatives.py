"""Negatives only, by hand, and what they tend to."""

import math

import pytest
from hypothesis import given

from align.objectives.registry import OBJECTIVES
from tests.objectives.laws import loss, nats, pair


def softplus(x):
    return math.log1p(math.exp(x))


def test_by_hand():
    policy, reference = pair(-1.0, -6.0, 1, 3), pair(-1.0, -8.0, 1, 3)
    assert loss("gradient_ascent", policy) == -6.0
    assert loss("npo", policy, reference, beta=0.5) == pytest.approx(4 * softplus(1.0))
    assert loss("simnpo", policy, beta=2.0, gamma=1.0) == pytest.approx(softplus(-4.0 + 1.0))


@pytest.mark.parametrize("name", ["gradient_ascent", "npo", "simnpo"])
def test_the_chosen_is_not_read(name):
    assert OBJECTIVES[name].reads == ("rejected",)


@given(nats, nats)
def test_npo_never_falls_below_0_while_gradient_ascent_has_no_floor(b, b0):
    assert loss("npo", pair(-1.0, b), pair(-1.0, b0)) >= 0
    assert loss("gradient_ascent", pair(-1.0, 10 * b)) == pytest.approx(10 * b)
