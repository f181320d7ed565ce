"""Losses of each side by hand, and where their least values lie."""

import math

import pytest
import torch
from hypothesis import given

from align.objectives.registry import OBJECTIVES
from tests.objectives.laws import loss, nats, pair

AT_START = pair(-10.0, -12.0)


def test_at_the_start():
    """h_w = h_l = 0: two and a half times log 2, and so on."""
    log2 = math.log(2)
    expected = {"nca_pair": 2 * log2, "bco_pair": 2 * log2, "apo_zero": 1.0, "apo_down": 1.0}
    for name, value in expected.items():
        assert loss(name, AT_START, AT_START) == pytest.approx(value)
    assert loss("sppo_hard", AT_START, AT_START, beta=0.1) == pytest.approx(50.0)
    assert loss("cal_dpo", AT_START, AT_START, beta=0.1) == pytest.approx(log2 + 25.0)


def test_targets_are_where_the_loss_is_least():
    """1/(2 beta) = 5 nats up and down; NCA's chosen at beta h = log 2."""
    at = pair(-5.0, -17.0)
    assert loss("sppo_hard", at, AT_START, beta=0.1) == pytest.approx(0.0)
    assert loss("cal_dpo", at, AT_START, beta=0.1) == pytest.approx(math.log1p(math.exp(-10)))
    best = -10.0 + math.log(2) / 0.1
    values = [loss("nca_pair", pair(best + step, -12.0), AT_START) for step in (-0.5, 0.0, 0.5)]
    assert values[1] < min(values[0], values[2])


def test_soft_win_rates_move_the_targets():
    """Win rates 0.75 and 0.25 at beta 0.1: 2.5 nats up and down."""
    sure = pair(-7.5, -14.5, chosen_scores=0.75, rejected_scores=0.25)
    assert loss("sppo", sure, AT_START, beta=0.1, win_rates="probabilities") == pytest.approx(0.0)
    by_score = pair(-7.5, -14.5, chosen_scores=math.log(3), rejected_scores=0.0)
    assert loss("sppo", by_score, AT_START, beta=0.1) == pytest.approx(0.0, abs=1e-12)


def test_certain_win_rates_are_sppo_hard():
    policy, reference = pair(-8.0, -13.0, chosen_scores=1.0, rejected_scores=0.0), AT_START
    soft = loss("sppo", policy, reference, win_rates="probabilities")
    assert soft == pytest.approx(loss("sppo_hard", policy, reference))


def test_scores_that_are_no_win_rates_are_refused():
    chosen, rejected = torch.tensor([1.5, 1.0, 0.5]), torch.tensor([0.0, -0.1, 0.5])
    ((bad, says),) = OBJECTIVES.build("sppo", win_rates="probabilities").score_faults(chosen, rejected)
    assert bad.tolist() == [True, True, False]
    assert "must be win rates from 0 to 1" in says
    assert OBJECTIVES.build("sppo").score_faults(chosen, rejected) == []


@given(nats, nats, nats, nats)
def test_sides_do_not_see_each_other(a, b, a0, b0):
    """A loss that is a sum: what changing one side does does not depend on the other."""
    for name in ("nca_pair", "bco_pair", "sppo_hard", "apo_zero"):
        gain = [
            loss(name, pair(a, other), pair(a0, b0)) - loss(name, pair(a - 1, other), pair(a0, b0)) for other in (b, b0)
        ]
        assert gain[0] == pytest.approx(gain[1], rel=1e-6, abs=1e-6)
