"""Hinge, IPO, DiscoPOP and DPO a token: by hand and by laws; the contract and parity tests have formulas and TRL."""

import math

import pytest
from hypothesis import given

from align.objectives.log_ratio import DiscoPOP
from tests.objectives.laws import lengths, loss, nats, pair

REFERENCE = pair(-10.0, -12.0, 4, 2)
POLICY = pair(-8.0, -13.0, 4, 2)
"""h_w = 2, h_l = -1; D = 3; a token 1/2 and -1/2: D_bar = 1."""


def test_by_hand():
    assert loss("hinge", POLICY, REFERENCE, beta=0.1) == pytest.approx(0.7)
    assert loss("hinge", POLICY, REFERENCE, beta=0.5) == 0.0
    assert loss("ipo", POLICY, REFERENCE, tau=0.5) == pytest.approx(0.0)
    assert loss("ipo", POLICY, REFERENCE, tau=0.1) == pytest.approx(16.0)
    assert loss("ipo_sum", POLICY, REFERENCE, tau=0.1) == pytest.approx(4.0)
    assert loss("sigmoid_norm", POLICY, REFERENCE, beta=2.0) == pytest.approx(math.log(1 + math.exp(-2)))
    assert loss("discopop", REFERENCE, REFERENCE) == pytest.approx(0.5 * math.log(2) + 0.5)


@given(nats, nats, nats, nats)
def test_ipo_is_ipo_sum_on_completions_of_one_token(a, b, a0, b0):
    policy, reference = pair(a, b), pair(a0, b0)
    assert loss("ipo", policy, reference) == pytest.approx(loss("ipo_sum", policy, reference))
    assert loss("sigmoid_norm", policy, reference) == pytest.approx(loss("dpo", policy, reference))


@given(nats, nats, nats, nats, nats, lengths, lengths)
def test_a_shift_of_policy_and_reference_together_changes_nothing(a, b, a0, b0, shift, n_w, n_l):
    for name in ("hinge", "ipo", "ipo_sum", "discopop", "sigmoid_norm"):
        here = loss(name, pair(a, b, n_w, n_l), pair(a0, b0, n_w, n_l))
        there = loss(name, pair(a + shift, b, n_w, n_l), pair(a0 + shift, b0, n_w, n_l))
        assert there == pytest.approx(here, rel=1e-9, abs=1e-9)


def test_discopop_first_pulls_the_wrong_way_and_is_bent_by_tau():
    """At margin 0: -beta (s(0)/2 + 1/2 - (1 - log 2)/(4 tau)) is the slope; positive for tau = 0.05."""
    lower, higher = (loss("discopop", pair(-10.0 + step, -12.0), pair(-10.0, -12.0)) for step in (0.0, 1e-4))
    assert (higher - lower) / 1e-4 == pytest.approx(-0.1 * (0.75 - (1 - math.log(2)) / 0.2), rel=1e-3)
    with pytest.raises(ValueError, match="tau must be greater than 0"):
        DiscoPOP(tau=0.0)
